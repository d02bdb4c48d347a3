"""What every policy objective, and every reduction of its loss, must keep."""

import pickle
from dataclasses import replace
from typing import ClassVar, Literal, get_args

import pytest
import torch
from pydantic import Field, TypeAdapter

from framework.masked import keep
from framework.objectives import Objective
from framework.objectives.objective import PolicyObjective, log_ratio, ratio_metrics
from framework.reduction import Reduction
from framework.seeding import derive
from framework.types import ObjectiveOutput, PolicyBatch


class ChiSquared(PolicyObjective):
    """An objective as a user would add one: the policy gradient with a chi-squared penalty on leaving the sampler."""

    kind: Literal["chi_squared"] = "chi_squared"
    pure_policy_gradient: ClassVar[bool] = False
    coef: float = Field(default=0.1, gt=0)

    def __call__(self, batch: PolicyBatch) -> ObjectiveOutput:
        """Loss of each token: `-ratio A + coef (ratio - 1)^2`; 0 at padding."""
        difference = log_ratio(batch)
        ratio = difference.exp()
        loss = -keep(batch.advantages, batch.mask) * ratio + self.coef * (ratio - 1).square()
        return ObjectiveOutput(keep(loss, batch.mask), ratio_metrics(difference))


class Undecided(PolicyObjective):
    """One that reads all that it can ask for: the policy gradient with a bonus for entropy, in scaled features."""

    kind: Literal["undecided"] = "undecided"
    needs_logits: ClassVar[bool] = True
    needs_features: ClassVar[bool] = True
    pure_policy_gradient: ClassVar[bool] = False

    def __call__(self, batch: PolicyBatch) -> ObjectiveOutput:
        assert batch.logits is not None and batch.features is not None
        logprobs = batch.logits.log_softmax(dim=-1)
        entropy = keep(-(logprobs.exp() * logprobs).sum(dim=-1), batch.mask)
        scale = keep(batch.features.square().mean(dim=-1), batch.mask)
        loss = -keep(batch.advantages, batch.mask) * keep(batch.logprobs, batch.mask) - entropy + 0.01 * scale
        return ObjectiveOutput(loss, ratio_metrics(log_ratio(batch)))


UNION = get_args(get_args(Objective)[0])
OBJECTIVES = pytest.mark.parametrize("member", [*UNION, ChiSquared, Undecided])
PURE = pytest.mark.parametrize("member", [member for member in UNION if member.pure_policy_gradient])
REDUCTIONS = pytest.mark.parametrize("member", get_args(get_args(Reduction)[0]))


def make_batch(member, advantages=None, on_policy=False):
    """Four rows; with logits and features where the objective asks for them, as the update gives them."""
    draw = torch.Generator().manual_seed(derive(0, "objectives"))
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]).bool()
    old = -torch.rand(4, 4, generator=draw) * 3 - 0.1
    new = old if on_policy else old + 0.1 * torch.randn(4, 4, generator=draw)
    if advantages is None:
        advantages = torch.randn(4, 4, generator=draw)
    # Junk at padding must not reach anything.
    old, advantages = old.masked_fill(~mask, torch.inf), advantages.masked_fill(~mask, torch.nan)
    logits = torch.randn(4, 4, 7, generator=draw).requires_grad_() if member.needs_logits else None
    features = torch.randn(4, 4, 5, generator=draw).requires_grad_() if member.needs_features else None
    return PolicyBatch(new.clone().requires_grad_(), old, advantages, mask, logits, features)


@OBJECTIVES
@pytest.mark.parametrize("on_policy", [True, False])
def test_finite_and_silent_at_padding(member, on_policy):
    batch = make_batch(member, on_policy=on_policy)
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
    batch = make_batch(member)
    old = torch.where(batch.mask, batch.logprobs.detach() - 500, batch.old_logprobs)
    output = member()(replace(batch, old_logprobs=old))
    output.token_loss.sum().backward()
    assert output.token_loss.isfinite().all()
    assert batch.logprobs.grad.isfinite().all()


@PURE
def test_zero_advantage_gives_zero_gradient(member):
    batch = make_batch(member, advantages=torch.zeros(4, 4))
    member()(batch).token_loss.sum().backward()
    assert not batch.logprobs.grad.any()


@PURE
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradient_step_moves_a_token_the_way_of_its_advantage(member, sign):
    batch = make_batch(member, advantages=torch.full((4, 4), sign), on_policy=True)
    member()(batch).token_loss.sum().backward()
    assert (batch.logprobs.grad[batch.mask] * sign < 0).all()


@OBJECTIVES
def test_padding_changes_nothing(member):
    batch = make_batch(member)

    def wider(x, fill):
        return x if x is None else torch.cat([x.detach(), torch.full_like(x[:, :3], fill)], dim=1)

    padded = PolicyBatch(
        wider(batch.logprobs, 7.0),
        wider(batch.old_logprobs, -3.0),
        wider(batch.advantages, 5.0),
        wider(batch.mask, False),
        wider(batch.logits, 2.0),
        wider(batch.features, 9.0),
    )
    assert torch.equal(member()(padded).token_loss[:, :4], member()(batch).token_loss)
    assert not member()(padded).token_loss[:, 4:].any()


@OBJECTIVES
def test_rows_do_not_see_each_other(member):
    batch, order = make_batch(member), [2, 0, 3, 1]
    assert torch.equal(member()(batch.select(order)).token_loss, member()(batch).token_loss[order])


@OBJECTIVES
def test_objective_survives_the_wire(member):
    check_wire(member(), Objective if member in UNION else member)


@OBJECTIVES
def test_a_pure_policy_gradient_is_what_it_says_and_the_others_are_not(member):
    batch = make_batch(member, advantages=torch.zeros(4, 4))
    member()(batch).token_loss.sum().backward()
    inputs = (batch.logprobs, batch.logits, batch.features)
    moved = any(x is not None and x.grad is not None and bool(x.grad.any()) for x in inputs)
    assert moved != member.pure_policy_gradient


@REDUCTIONS
def test_reduction_survives_the_wire(member):
    check_wire(member(), Reduction)


def check_wire(component, union):
    assert pickle.loads(pickle.dumps(component)) == component
    adapter = TypeAdapter(union)
    assert adapter.validate_json(adapter.dump_json(component)) == component


@REDUCTIONS
def test_weights_stand_on_real_tokens_only(member):
    mask = make_batch(PolicyObjective).mask
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
    batch = make_batch(PolicyObjective)
    weights = member().weights(batch.mask)
    loss = batch.advantages.masked_fill(~batch.mask, 0.0)
    parts = sum((loss[i : i + 1] * weights[i : i + 1]).sum() for i in range(4))
    torch.testing.assert_close(parts, (loss * weights).sum())
