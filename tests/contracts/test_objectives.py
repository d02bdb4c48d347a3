"""What every policy objective, and every reduction of its loss, must keep."""

import pickle
from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter

from framework.objectives import Objective
from framework.reduction import Reduction
from framework.seeding import torch_generator
from framework.types import PolicyBatch

OBJECTIVES = pytest.mark.parametrize("member", get_args(get_args(Objective)[0]))
REDUCTIONS = pytest.mark.parametrize("member", get_args(get_args(Reduction)[0]))


def make_batch(advantages=None, on_policy=False):
    draw = torch_generator(0, "objectives")
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]).bool()
    old = -torch.rand(4, 4, generator=draw) * 3 - 0.1
    new = old if on_policy else old + 0.1 * torch.randn(4, 4, generator=draw)
    if advantages is None:
        advantages = torch.randn(4, 4, generator=draw)
    # Junk at padding must not reach anything.
    old, advantages = old.masked_fill(~mask, torch.inf), advantages.masked_fill(~mask, torch.nan)
    return PolicyBatch(new.clone().requires_grad_(), old, advantages, mask)


@OBJECTIVES
@pytest.mark.parametrize("on_policy", [True, False])
def test_finite_and_silent_at_padding(member, on_policy):
    batch = make_batch(on_policy=on_policy)
    output = member()(batch)
    output.token_loss.sum().backward()
    assert output.token_loss.isfinite().all()
    assert not output.token_loss[~batch.mask].any()
    assert batch.logprobs.grad[batch.mask].isfinite().all()
    assert not batch.logprobs.grad[~batch.mask].any()
    for name, values in output.token_metrics.items():
        assert values.isfinite().all(), name
        assert not values.requires_grad, name


@OBJECTIVES
def test_survives_log_ratios_that_would_overflow(member):
    batch = make_batch()
    old = torch.where(batch.mask, batch.logprobs.detach() - 500, batch.old_logprobs)
    output = member()(PolicyBatch(batch.logprobs, old, batch.advantages, batch.mask))
    output.token_loss.sum().backward()
    assert output.token_loss.isfinite().all()
    assert batch.logprobs.grad.isfinite().all()


@OBJECTIVES
def test_zero_advantage_gives_zero_gradient(member):
    batch = make_batch(advantages=torch.zeros(4, 4))
    member()(batch).token_loss.sum().backward()
    assert not batch.logprobs.grad.any()


@OBJECTIVES
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradient_step_moves_a_token_the_way_of_its_advantage(member, sign):
    batch = make_batch(advantages=torch.full((4, 4), sign), on_policy=True)
    member()(batch).token_loss.sum().backward()
    assert (batch.logprobs.grad[batch.mask] * sign < 0).all()


@OBJECTIVES
def test_padding_changes_nothing(member):
    batch = make_batch()

    def wider(x, fill):
        return torch.cat([x.detach(), torch.full((4, 3), fill, dtype=x.dtype)], dim=1)

    padded = PolicyBatch(
        wider(batch.logprobs, 7.0),
        wider(batch.old_logprobs, -3.0),
        wider(batch.advantages, 5.0),
        wider(batch.mask, False),
    )
    assert torch.equal(member()(padded).token_loss[:, :4], member()(batch).token_loss)
    assert not member()(padded).token_loss[:, 4:].any()


@OBJECTIVES
def test_rows_do_not_see_each_other(member):
    batch, order = make_batch(), [2, 0, 3, 1]
    assert torch.equal(member()(batch.select(order)).token_loss, member()(batch).token_loss[order])


@OBJECTIVES
def test_objective_survives_the_wire(member):
    check_wire(member(), Objective)


@REDUCTIONS
def test_reduction_survives_the_wire(member):
    check_wire(member(), Reduction)


def check_wire(component, union):
    assert pickle.loads(pickle.dumps(component)) == component
    adapter = TypeAdapter(union)
    assert adapter.validate_json(adapter.dump_json(component)) == component


@REDUCTIONS
def test_weights_stand_on_real_tokens_only(member):
    mask = make_batch().mask
    weights = member().weights(mask)
    assert (weights[mask] > 0).all()
    assert not weights[~mask].any()
    assert weights.sum() <= 1 + 1e-6


@REDUCTIONS
def test_a_constant_loss_keeps_its_value_where_all_rows_are_full(member):
    mask = torch.ones(3, 5, dtype=torch.bool)
    assert member().weights(mask).sum().item() == pytest.approx(1.0)


@REDUCTIONS
def test_no_real_token_gives_a_loss_of_zero(member):
    assert not member().weights(torch.zeros(2, 3, dtype=torch.bool)).any()


@REDUCTIONS
def test_parts_add_up_to_the_whole(member):
    batch = make_batch()
    weights = member().weights(batch.mask)
    loss = batch.advantages.masked_fill(~batch.mask, 0.0)
    parts = sum((loss[i : i + 1] * weights[i : i + 1]).sum() for i in range(4))
    torch.testing.assert_close(parts, (loss * weights).sum())
