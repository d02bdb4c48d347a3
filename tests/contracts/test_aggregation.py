"""What every aggregation of heads must keep."""

import math
import pickle
from itertools import pairwise
from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter

from framework.aggregation import Aggregation, Entropic, Mean, Uncertainty, WorstCase
from framework.seeding import derive

MEMBERS = pytest.mark.parametrize("member", get_args(get_args(Aggregation)[0]))


@pytest.fixture
def scores():
    return torch.randn(5, 7, generator=torch.Generator().manual_seed(derive(0, "aggregation")), dtype=torch.float64) * 2


@MEMBERS
def test_one_head_is_itself(member, scores):
    assert torch.equal(member()(scores[:1]), scores[0])


@MEMBERS
def test_heads_in_agreement_are_believed(member, scores):
    torch.testing.assert_close(member()(scores[:1].expand(4, 7)), scores[0])


@MEMBERS
def test_order_of_heads_does_not_matter(member, scores):
    torch.testing.assert_close(member()(scores[[3, 0, 4, 2, 1]]), member()(scores))


@MEMBERS
def test_responses_do_not_see_each_other(member, scores):
    torch.testing.assert_close(member()(scores[:, [4, 1]]), member()(scores)[[4, 1]])


@MEMBERS
@pytest.mark.parametrize("shift", [-300.0, 0.7, 1e4])
def test_shifting_all_heads_shifts_the_reward(member, scores, shift):
    torch.testing.assert_close(member()(scores + shift), member()(scores) + shift)


@MEMBERS
def test_never_above_the_mean_nor_the_best_head(member, scores):
    assert (member()(scores) <= scores.mean(dim=0) + 1e-12).all()
    assert (member()(scores) <= scores.amax(dim=0)).all()


@MEMBERS
@pytest.mark.parametrize("scale", [1e-3, 1e3, 1e15])
def test_finite_in_32_bits_at_any_scale(member, scores, scale):
    assert member()((scores * scale).float()).isfinite().all()


@MEMBERS
def test_says_its_convention(member):
    convention = member().convention
    assert convention
    assert "\n" not in convention


def test_the_variance_convention_is_named():
    assert "population variance" in Uncertainty().convention


@MEMBERS
def test_survives_the_wire(member):
    component = member()
    assert pickle.loads(pickle.dumps(component)) == component
    adapter = TypeAdapter(Aggregation)
    assert adapter.validate_json(adapter.dump_json(component)) == component


def test_uncertainty_of_weight_zero_is_the_mean_bit_for_bit(scores):
    for x in (scores, scores.float() * 1e30):
        assert torch.equal(Uncertainty(weight=0)(x), Mean()(x))


def test_entropic_falls_from_the_mean_to_the_minimum(scores):
    rewards = [Entropic(temperature=t)(scores) for t in (1e-3, 0.1, 1.0, 10.0, 1e6)]
    for cold, hot in pairwise(rewards):
        assert (cold <= hot).all()
    # The gap to the minimum is at most temperature x log(heads).
    assert (rewards[0] - WorstCase()(scores) <= 1e-3 * math.log(5) + 1e-12).all()
    torch.testing.assert_close(rewards[-1], Mean()(scores), atol=1e-5, rtol=0)


def test_entropic_is_uncertainty_to_second_order(scores):
    temperature = 1e4
    second_order = Uncertainty(weight=1 / (2 * temperature))(scores)
    torch.testing.assert_close(Entropic(temperature=temperature)(scores), second_order, atol=1e-7, rtol=0)


def test_what_entropic_and_uncertainty_differ_by_is_of_the_third_order(scores):
    def apart(spread):
        close = Entropic(temperature=2.0)(scores * spread), Uncertainty(weight=1 / 4)(scores * spread)
        return (close[0] - close[1]).abs()

    # Half the spread, an eighth of the difference.
    torch.testing.assert_close(apart(1e-3) / apart(5e-4), torch.full((7,), 8.0).double(), rtol=0.02, atol=0)
