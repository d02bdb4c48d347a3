import math

import pytest
import torch

from framework.advantages import Gae, GroupMean, LeaveOneOut
from framework.errors import UserError


def test_gae_by_hand(make_shaped):
    # gamma 1, lambda 0.5, values 1 2 3, reward 10 at the end.
    # Errors: 0 + 2 - 1 = 1; 0 + 3 - 2 = 1; 10 - 3 = 7. Sums: 7; 1 + 3.5 = 4.5; 1 + 2.25 = 3.25.
    rewards, values = torch.tensor([[0.0, 0.0, 10.0, 0.0]]), torch.tensor([[1.0, 2.0, 3.0, 0.0]])
    shaped = make_shaped([[1, 1, 1, 0]], rewards, values=values)
    credited = Gae(lam=0.5, whiten=False)(shaped)
    assert credited.advantages.tolist() == [[3.25, 4.5, 7.0, 0.0]]
    assert credited.returns.tolist() == [[4.25, 6.5, 10.0, 0.0]]


def test_lambda_one_is_reward_to_go_less_the_value(make_shaped):
    rewards, values = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[1.0, 1.0, 1.0]])
    credited = Gae(lam=1.0, whiten=False)(make_shaped([[1, 1, 1]], rewards, values=values))
    assert credited.advantages.tolist() == [[6.0, 5.0, 3.0]]


def test_gae_without_a_critic_says_how_to_mend_it(make_shaped):
    with pytest.raises(UserError, match="value head"):
        Gae()(make_shaped([[1]], torch.ones(1, 1)))


def test_leave_one_out_by_hand(make_shaped):
    # Scores 1, 2, 6: against the mean of the other two.
    rewards = torch.tensor([[1.0, 0.0], [0.5, 1.5], [6.0, 0.0]])
    credited = LeaveOneOut()(make_shaped([[1, 0], [1, 1], [1, 0]], rewards))
    assert credited.advantages.tolist() == [[-3.0, 0.0], [-1.5, -1.5], [4.5, 0.0]]


def test_group_mean_by_hand(make_shaped):
    # Scores 1, 2, 6: mean 3, deviations -2 -1 3, sample variance 14 / 2.
    shaped = make_shaped([[1], [1], [1]], torch.tensor([[1.0], [2.0], [6.0]]))
    assert GroupMean(divide_by_std=False)(shaped).advantages[:, 0].tolist() == [-2, -1, 3]
    divided = GroupMean()(shaped).advantages[:, 0].tolist()
    assert divided == pytest.approx([x / math.sqrt(7) for x in (-2, -1, 3)], rel=1e-5)


@pytest.mark.parametrize("component", [LeaveOneOut(), GroupMean()])
def test_groups_are_told_apart_by_any_numbers(component, make_shaped):
    rewards = torch.tensor([[1.0], [5.0], [2.0], [9.0]])
    mixed = component(make_shaped([[1]] * 4, rewards, group=[10**9, -7, 10**9, -7]))
    for rows in ([0, 2], [1, 3]):
        apart = component(make_shaped([[1]] * 2, rewards[rows], group=[0, 0]))
        torch.testing.assert_close(mixed.advantages[rows], apart.advantages)


@pytest.mark.parametrize("component", [LeaveOneOut(), GroupMean()])
def test_a_group_of_one_is_refused(component, make_shaped):
    with pytest.raises(UserError, match="at least two per prompt"):
        component(make_shaped([[1], [1], [1]], torch.ones(3, 1), group=[4, 4, 5]))
