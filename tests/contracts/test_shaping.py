"""What every way of applying the KL penalty must keep."""

import pickle
from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter

from framework.seeding import derive
from framework.shaping import Shaping

MEMBERS = pytest.mark.parametrize("member", get_args(get_args(Shaping)[0]))
MASK = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]).bool()
REWARD = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)


@pytest.fixture
def sampled(make_rollout):
    draw = torch.Generator().manual_seed(derive(0, "shaping"))
    logprobs = -torch.rand(4, 4, generator=draw, dtype=torch.float64) * MASK
    reference = -torch.rand(4, 4, generator=draw, dtype=torch.float64) * MASK
    return make_rollout(MASK, logprobs=logprobs), reference


@MEMBERS
def test_finite_and_zero_at_padding(member, sampled):
    shaped = member()(*sampled, REWARD, 0.1)
    assert shaped.token_rewards.isfinite().all()
    assert not shaped.token_rewards[~MASK].any()
    assert shaped.kl_coef == 0.1


@MEMBERS
def test_without_a_penalty_only_the_last_token_is_rewarded(member, sampled):
    rewards = member()(*sampled, REWARD, 0.0).token_rewards
    expected = torch.zeros(4, 4, dtype=torch.float64)
    expected[0, 3], expected[1, 0], expected[2, 2] = REWARD[0], REWARD[1], REWARD[2]
    assert torch.equal(rewards, expected)


@MEMBERS
def test_kl_is_the_sequence_log_ratio_whatever_the_penalty(member, sampled):
    rollout, reference = sampled
    expected = ((rollout.logprobs - reference) * MASK).sum(dim=1)
    for coef in (0.0, 0.3):
        torch.testing.assert_close(member()(*sampled, REWARD, coef).kl_nats, expected)


@MEMBERS
def test_a_policy_equal_to_its_reference_pays_nothing(member, sampled):
    rollout, _ = sampled
    shaped = member()(rollout, rollout.logprobs, REWARD, 0.5)
    torch.testing.assert_close(shaped.token_rewards.sum(dim=1)[:3], REWARD[:3])
    assert not shaped.kl_nats.any()


@MEMBERS
def test_junk_at_padding_reaches_nothing(member, sampled):
    rollout, reference = sampled
    dirty = reference.masked_fill(~MASK, torch.nan)
    clean = member()(rollout, reference, REWARD, 0.1)
    shaped = member()(rollout, dirty, REWARD, 0.1)
    assert torch.equal(shaped.token_rewards, clean.token_rewards)
    assert torch.equal(shaped.kl_nats, clean.kl_nats)


@MEMBERS
def test_row_order_does_not_matter(member, sampled):
    rollout, reference = sampled
    order = [2, 3, 0, 1]
    shaped = member()(rollout.select(order), reference[order], REWARD[order], 0.1)
    assert torch.equal(shaped.token_rewards, member()(*sampled, REWARD, 0.1).token_rewards[order])


@MEMBERS
def test_survives_the_wire(member):
    component = member()
    assert pickle.loads(pickle.dumps(component)) == component
    adapter = TypeAdapter(Shaping)
    assert adapter.validate_json(adapter.dump_json(component)) == component
