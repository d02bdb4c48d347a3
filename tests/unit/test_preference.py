import math

import pytest
import torch

from framework.preference import bradley_terry, centring, pair_accuracy

CHOSEN = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
REJECTED = torch.tensor([[0.0, 0.0, 3.0], [0.0, -1.0, -1.0]])


def test_bradley_terry_by_hand():
    # A tie costs log 2; a lead of 1 costs log(1 + 1/e).
    loss = bradley_terry(CHOSEN, REJECTED)
    assert loss[0].tolist() == pytest.approx([math.log1p(math.exp(-1)), math.log(2), math.log1p(math.e)])


def test_a_margin_is_a_handicap_for_the_chosen():
    margin = torch.tensor([1.0, 0.0, 0.0])
    assert bradley_terry(CHOSEN, REJECTED, margin)[0, 0].item() == pytest.approx(math.log(2))
    assert bradley_terry(CHOSEN[0], REJECTED[0], margin)[0].item() == pytest.approx(math.log(2))


def test_finite_for_hopeless_pairs():
    chosen = torch.tensor([-1e4], requires_grad=True)
    loss = bradley_terry(chosen, torch.tensor([1e4])).sum()
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert chosen.grad.item() == -1


def test_a_constant_per_head_changes_nothing_but_centring():
    shift = torch.tensor([[5.0], [-3.0]])
    shifted = bradley_terry(CHOSEN + shift, REJECTED + shift)
    torch.testing.assert_close(shifted, bradley_terry(CHOSEN, REJECTED))
    # (1 + 0)^2, (0 + 0)^2, (2 + 3)^2
    assert centring(CHOSEN, REJECTED)[0].tolist() == [1, 0, 25]


def test_accuracy_counts_a_tie_as_one_half():
    assert pair_accuracy(CHOSEN, REJECTED).tolist() == pytest.approx([1.5 / 3, 2.5 / 3])
    assert pair_accuracy(CHOSEN[0], REJECTED[0]).item() == pytest.approx(0.5)
