"""One policy update: epochs of mini-batches over a credited rollout.

The loss of a mini-batch is a weighted sum over its tokens, and the weights are fixed for the whole
mini-batch before it is cut into micro-batches. Accumulated or not, the gradient is the same.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from framework.component import Component
from framework.errors import RunError
from framework.masked import masked_mean
from framework.models.causal import CausalPolicy
from framework.objectives import Objective
from framework.objectives.value import value_loss
from framework.reduction import Reduction, TokenMean
from framework.seeding import numpy_generator
from framework.shaping import KlInLoss, Shaping
from framework.training.engine import Engine, Optimizer
from framework.types import Credited, PolicyBatch


class Update(Component):
    """How often and in what pieces a rollout is learnt from."""

    epochs: int = Field(default=1, ge=1)
    """Passes over each rollout."""
    minibatches: int = Field(default=1, ge=1)
    """Optimiser steps per pass; must divide the rollouts of a step."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Rows per forward pass; the rest of a mini-batch is accumulated. None: the whole mini-batch."""
    reduction: Reduction = TokenMean()
    value_coef: float = Field(default=0.1, ge=0)
    """Weight of the critic's loss, where the advantage needs a critic."""
    value_clip: float | None = Field(default=0.2, gt=0)
    """Range around the old value; None leaves the critic's loss unclipped."""
    optimizer: Optimizer = Optimizer(lr=4e-4, warmup_steps=10, betas=(0.9, 0.95))


@dataclass(frozen=True)
class UpdateReport:
    """What an update did, averaged over its optimiser steps."""

    metrics: dict[str, float]
    policy_version: int


class PolicyUpdate:
    """Applies an objective to credited rollouts through an engine."""

    def __init__(
        self,
        engine: Engine,
        policy: CausalPolicy,
        settings: Update,
        objective: Objective,
        shaping: Shaping,
        seed: int,
        temperature: float,
    ) -> None:
        self.engine, self.policy, self.settings = engine, policy, settings
        self.objective, self.shaping = objective, shaping
        self.seed, self.temperature = seed, temperature

    def __call__(self, credited: Credited) -> dict[str, float]:
        """Metrics of the update, each a mean over its optimiser steps.

        Raises:
            RunError: a loss or gradient that is not finite; no step is taken on it.
        """
        step = credited.shaped.rollout.step
        order = numpy_generator(self.seed, "minibatch", step)
        seen: list[dict[str, float]] = []
        for _ in range(self.settings.epochs):
            shuffled = order.permutation(len(credited))
            for part in np.array_split(shuffled, self.settings.minibatches):
                # Rows go back to sampling order inside a mini-batch: order must not matter.
                seen.append(self._minibatch(credited.select(sorted(part.tolist()))))
        report = {name: float(np.mean([m[name] for m in seen])) for name in seen[0]}
        report["sampler_gap"] = seen[0]["logprob_gap"]
        del report["logprob_gap"]
        return report

    def _minibatch(self, batch: Credited) -> dict[str, float]:
        """One optimiser step."""
        weights = self.settings.reduction.weights(batch.shaped.rollout.mask)
        rows = self.settings.micro_batch or len(batch)
        totals: dict[str, float] = {}
        for start in range(0, len(batch), rows):
            micro = batch.rows(start, start + rows)
            loss, means = self._loss(micro, weights[start : start + rows])
            # All figures in one transfer: on a GPU each one would wait for everything before it.
            loss_now, *figures = torch.stack([loss.detach(), *means.values()]).tolist()
            if not np.isfinite(loss_now):
                step = batch.shaped.rollout.step
                raise RunError(f"policy: the loss is {loss_now} at step {step}; no update was made")
            self.engine.backward(loss)
            share = float(micro.shaped.rollout.mask.sum() / batch.shaped.rollout.mask.sum().clamp(min=1))
            totals["loss"] = totals.get("loss", 0.0) + loss_now
            for name, value in zip(means, figures, strict=True):
                totals[name] = totals.get(name, 0.0) + value * share
        totals["grad_norm"] = self.engine.step()
        if not np.isfinite(totals["grad_norm"]):
            raise RunError(f"policy: the gradient is not finite at step {batch.shaped.rollout.step}")
        return totals

    def _loss(self, micro: Credited, weights: Float[Tensor, "B T"]) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's part of the mini-batch loss, and token means to log."""
        micro, weights = _trim(micro, weights, self.policy.output_weight.device)
        rollout = micro.shaped.rollout
        with self.engine.autocast():
            logprobs, values = self.policy.logprobs_and_values(rollout, self.temperature)
        output = self.objective(PolicyBatch(logprobs, rollout.logprobs, micro.advantages, rollout.mask))
        loss = (output.token_loss * weights).sum()
        if isinstance(self.shaping, KlInLoss):
            loss = loss + self.shaping.loss(
                logprobs, micro.shaped.reference, rollout.mask, micro.shaped.kl_coef, weights
            )
        metrics = {name: masked_mean(m, rollout.mask) for name, m in output.token_metrics.items()}
        if values is not None and rollout.values is not None:
            critic = value_loss(values, rollout.values, micro.returns, rollout.mask, self.settings.value_clip)
            loss = loss + self.settings.value_coef * (critic * weights).sum()
            metrics["value_loss"] = masked_mean(critic.detach(), rollout.mask)
        gap = (logprobs.detach() - rollout.logprobs).abs()
        metrics["logprob_gap"] = masked_mean(gap, rollout.mask)
        return loss, metrics


def _trim(
    micro: Credited, weights: Float[Tensor, "B T"], device: torch.device
) -> tuple[Credited, Float[Tensor, "B W"]]:
    """The batch without columns that are padding in every row, on the policy's device."""
    width = max(1, int(micro.shaped.rollout.mask.sum(dim=1).max()))
    return micro.columns(width).to(device), weights[:, :width].to(device)
