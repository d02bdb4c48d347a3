"""What every way of assigning credit must keep."""

import pickle
from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter

from framework.advantages import Advantage
from framework.seeding import derive

MEMBERS = pytest.mark.parametrize("member", get_args(get_args(Advantage)[0]))
MASK = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]).bool()
GROUP = torch.tensor([70, -2, 70, -2, -2])


@pytest.fixture
def shaped(make_shaped):
    draw = torch.Generator().manual_seed(derive(0, "advantages"))
    rewards = torch.randn(5, 4, generator=draw, dtype=torch.float64) * MASK
    values = torch.randn(5, 4, generator=draw, dtype=torch.float64) * MASK
    return make_shaped(MASK, rewards, values=values, group=GROUP)


@MEMBERS
def test_finite_and_zero_at_padding(member, shaped):
    credited = member()(shaped)
    for values in (credited.advantages, credited.returns):
        assert values.isfinite().all()
        assert not values[~MASK].any()
    assert credited.advantages.any()


@MEMBERS
def test_returns_are_for_a_critic_only(member, shaped):
    assert bool(member()(shaped).returns.any()) == member().needs_critic


@MEMBERS
def test_row_order_does_not_matter(member, shaped):
    order = [3, 1, 4, 0, 2]
    torch.testing.assert_close(member()(shaped.select(order)).advantages, member()(shaped).advantages[order])


@MEMBERS
def test_padding_does_not_matter(member, shaped, make_shaped):
    def wider(x):
        return torch.cat([x, torch.zeros(5, 3, dtype=x.dtype)], dim=1)

    rollout = shaped.rollout
    padded = make_shaped(wider(MASK), wider(shaped.token_rewards), wider(rollout.values), GROUP)
    torch.testing.assert_close(member()(padded).advantages[:, :4], member()(shaped).advantages)


@MEMBERS
def test_more_reward_is_more_advantage(member, shaped, make_shaped):
    rewards = shaped.token_rewards.clone()
    rewards[0, 3] += 5
    better = make_shaped(MASK, rewards, values=shaped.rollout.values, group=GROUP)
    assert member()(better).advantages[0, 3] > member()(shaped).advantages[0, 3]


@MEMBERS
def test_a_batch_of_equal_rows_pushes_nowhere(member, make_shaped):
    mask = torch.ones(4, 1, dtype=torch.bool)
    # 0.3 is not exact in 32 bits: rounding must not become an advantage.
    rewards = torch.full((4, 1), 0.3)
    shaped = make_shaped(mask, rewards, values=torch.zeros(4, 1), group=[0, 0, 1, 1])
    if not member().needs_critic or member().whiten:
        torch.testing.assert_close(member()(shaped).advantages, torch.zeros(4, 1), atol=1e-3, rtol=0)


@MEMBERS
def test_keeps_the_dtype(member, make_shaped):
    rewards, values = torch.randn(5, 4), torch.randn(5, 4)
    credited = member()(make_shaped(MASK, rewards, values=values, group=GROUP))
    assert credited.advantages.dtype == credited.returns.dtype == torch.float32


@MEMBERS
def test_survives_the_wire(member):
    component = member()
    assert pickle.loads(pickle.dumps(component)) == component
    adapter = TypeAdapter(Advantage)
    assert adapter.validate_json(adapter.dump_json(component)) == component
