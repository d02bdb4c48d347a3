"""The update: its weighted sum, what it does with figures that are not finite, and what it reports."""

import math
from dataclasses import replace
from typing import ClassVar, Literal

import pytest
import torch

from framework.critic import SquaredError
from framework.errors import RunError
from framework.generation.sampler import SampleRequest, TorchSampler
from framework.masked import keep
from framework.models.causal import CausalPolicy
from framework.models.settings import TinyLlama
from framework.objectives import PpoClip
from framework.reduction import FixedLength, SequenceMean, TokenMean
from framework.shaping import KlInLoss, KlInReward
from framework.training.engine import Optimizer
from framework.training.policy_update import PolicyUpdate, Update
from framework.training.torch_engine import TorchEngine
from framework.types import Credited, ObjectiveOutput, PolicyBatch, Shaped
from framework.worlds.reviews import Reviews

ROWS = 8


class _Watched(TorchEngine):
    """Keeps the gradients that each step was taken on."""

    def __init__(self, policy: CausalPolicy, lr: float) -> None:
        super().__init__(policy, Optimizer(lr=lr))
        self.gradients: list[list[torch.Tensor]] = []

    def step(self) -> float:
        self.gradients.append([torch.zeros(1) if p.grad is None else p.grad.clone() for p in self.parameters])
        return super().step()


def _policy(with_value_head: bool = False) -> CausalPolicy:
    torch.manual_seed(0)
    tokenizer = Reviews().tokenizer()
    model = TinyLlama(hidden=16, layers=1, heads=2, intermediate=16).build(
        len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id
    )
    return CausalPolicy(model, with_value_head).eval()


def _credited(policy: CausalPolicy, kl_coef: float = 0.1) -> Credited:
    """Real samples of uneven length, with made-up credit."""
    prompts = ("the room :", "the room was very", "the food :", "the")
    request = SampleRequest(prompts=prompts, positions=(0, 1, 2, 3), samples_per_prompt=2, step=7, policy_version=0)
    rollout = TorchSampler(policy, Reviews().tokenizer(), 0, 12).sample(request)
    mask = rollout.mask.clone()
    mask[0, 2:] = False  # an untrained policy seldom ends a text: make lengths differ
    mask[3, 5:] = False
    rollout = replace(rollout, mask=mask, logprobs=rollout.logprobs * mask)
    noise = torch.randn(mask.shape, generator=torch.Generator().manual_seed(1)) * mask
    shaped = Shaped(
        rollout=rollout,
        reference=rollout.logprobs + 0.3 * noise,
        reward=torch.zeros(ROWS),
        token_rewards=torch.zeros(mask.shape),
        kl_nats=torch.zeros(ROWS),
        kl_coef=kl_coef,
    )
    return Credited(shaped, advantages=noise, returns=2 * noise + mask)


def _update(policy: CausalPolicy, settings: Update, shaping=None, lr: float = 1e-3, objective=None):
    engine = _Watched(policy, lr)
    update = PolicyUpdate(engine, settings, objective or PpoClip(), shaping or KlInReward(), seed=0, temperature=1.0)
    return engine, update


def _largest_difference(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    scale = max(float(g.abs().max()) for g in a)
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True)) / scale


@pytest.mark.parametrize("reduction", [TokenMean(), SequenceMean(), FixedLength()])
@pytest.mark.parametrize("shaping", [KlInReward(), KlInLoss()])
def test_accumulated_gradients_are_the_whole_mini_batchs(reduction, shaping):
    found = []
    for micro_batch in (None, 4, 1):
        policy = _policy(with_value_head=True)
        settings = Update(reduction=reduction, micro_batch=micro_batch, minibatches=2)
        engine, update = _update(policy, settings, shaping, lr=1e-12)
        found.append((engine.gradients, update(_credited(policy))))
    (whole, metrics), *others = found
    assert len(whole) == 2
    for parts, parts_metrics in others:
        assert len(parts) == 2
        for a, b in zip(whole, parts, strict=True):
            assert _largest_difference(a, b) < 1e-5
        assert parts_metrics == pytest.approx(metrics, rel=1e-4, abs=1e-6)


def test_one_step_per_mini_batch_and_epoch():
    policy = _policy()
    engine, update = _update(policy, Update(epochs=3, minibatches=4))
    update(_credited(policy))
    assert len(engine.gradients) == engine.steps_taken == 12


def test_the_samplers_logprobs_are_the_updates():
    policy = _policy()
    _, update = _update(policy, Update(epochs=2), lr=0.5)
    assert update(_credited(policy))["sampler_gap"] < 1e-5


def test_a_gap_between_sampler_and_update_is_reported():
    policy = _policy()
    credited = _credited(policy)
    rollout = credited.shaped.rollout
    shifted = replace(rollout, logprobs=(rollout.logprobs - 0.25) * rollout.mask)
    _, update = _update(policy, Update())
    metrics = update(replace(credited, shaped=replace(credited.shaped, rollout=shifted)))
    assert metrics["sampler_gap"] == pytest.approx(0.25, abs=1e-4)


def test_the_critic_learns_with_its_coefficient():
    losses, heads = {}, {}
    for coef in (0.0, 0.5):
        policy = _policy(with_value_head=True)
        engine, update = _update(policy, Update(critic=SquaredError(coef=coef, clip=None)))
        metrics = update(_credited(policy))
        losses[coef], value_loss = metrics["loss"], metrics["value_loss"]
        index = [i for i, p in enumerate(engine.parameters) if p is policy.value_head.bias][0]  # noqa: RUF015
        heads[coef] = float(engine.gradients[0][index].abs().max())
    assert value_loss > 0.1
    assert losses[0.5] - losses[0.0] == pytest.approx(0.5 * value_loss, rel=1e-4)
    assert heads[0.0] == 0.0 < heads[0.5]


class _Curious(PpoClip):
    """An objective that looks at all there is, and rewards being undecided."""

    kind: Literal["curious"] = "curious"
    needs_logits: ClassVar[bool] = True
    needs_features: ClassVar[bool] = True
    seen: ClassVar[list[PolicyBatch]] = []

    def __call__(self, batch: PolicyBatch) -> ObjectiveOutput:
        self.seen.append(batch)
        logprobs = batch.logits.log_softmax(dim=-1)
        entropy = keep(-(logprobs.exp() * logprobs).sum(dim=-1), batch.mask)
        output = super().__call__(batch)
        return replace(output, token_loss=output.token_loss - 0.5 * entropy)


def test_an_objective_gets_the_logits_and_the_features_that_it_asks_for():
    policy = _policy()
    credited = _credited(policy)
    engine, update = _update(policy, Update(micro_batch=4), lr=1e-12, objective=_Curious())
    update(credited)
    plain_engine, plain_update = _update(policy, Update(micro_batch=4), lr=1e-12)
    plain_update(credited)
    assert len(_Curious.seen) == 2
    for start, batch in zip((0, 4), _Curious.seen, strict=True):
        rollout = credited.shaped.rollout.rows(start, start + 4)
        rollout = rollout.columns(batch.mask.shape[1])
        chosen = batch.logits.log_softmax(dim=-1).gather(-1, rollout.response_ids.unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(keep(chosen, rollout.mask), batch.logprobs)
        assert batch.features.shape == (4, batch.mask.shape[1], 16)
    # The entropy's gradient arrived at the weights.
    assert _largest_difference(plain_engine.gradients[0], engine.gradients[0]) > 1e-3


def test_an_objective_that_asks_for_nothing_is_given_nothing():
    batches = []

    class Watching(PpoClip):
        def __call__(self, batch: PolicyBatch) -> ObjectiveOutput:
            batches.append(batch)
            return super().__call__(batch)

    policy = _policy()
    _update(policy, Update(), objective=Watching())[1](_credited(policy))
    assert batches[0].logits is None and batches[0].features is None


def test_without_a_critic_there_is_no_value_loss():
    policy = _policy()
    _, update = _update(policy, Update())
    assert "value_loss" not in update(_credited(policy))


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_no_step_is_taken_on_a_loss_that_is_not_finite(micro_batch):
    policy = _policy()
    credited = _credited(policy)
    advantages = credited.advantages.clone()
    advantages[ROWS - 1, 0] = math.nan
    before = [p.detach().clone() for p in policy.parameters()]
    engine, update = _update(policy, Update(micro_batch=micro_batch))
    with pytest.raises(RunError, match=r"policy: the loss is nan at step 7"):
        update(replace(credited, advantages=advantages))
    assert engine.steps_taken == 0
    assert all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))


def test_no_step_is_taken_on_a_gradient_that_is_not_finite():
    policy = _policy()
    credited = _credited(policy)
    before = [p.detach().clone() for p in policy.parameters()]
    engine, update = _update(policy, Update())
    policy.model.base_model.norm.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(RunError, match=r"policy: the gradient is not finite at step 7"):
        update(credited)
    assert engine.steps_taken == 0
    assert all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
