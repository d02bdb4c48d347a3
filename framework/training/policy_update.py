"""One policy update: epochs of mini-batches over a credited rollout.

The loss of a mini-batch is a weighted sum over its tokens, and the weights are fixed for the whole
mini-batch before it is cut into micro-batches. Accumulated or not, the gradient is the same.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from pydantic import Field

from framework.component import Component
from framework.critic import Critic, SquaredError
from framework.errors import RunError
from framework.masked import masked_mean
from framework.objectives.objective import PolicyObjective
from framework.reduction import Reduction, TokenMean
from framework.seeding import numpy_generator
from framework.shaping import KlInLoss, Shaping
from framework.tensor import Tensor
from framework.training.engine import Optimizer
from framework.types import Credited, PolicyBatch

if TYPE_CHECKING:
    from framework.training.torch_engine import TorchEngine


class Update(Component):
    """How often and in what pieces a rollout is learnt from."""

    epochs: int = Field(default=1, ge=1)
    """Passes over each rollout."""
    minibatches: int = Field(default=1, ge=1)
    """Optimiser steps per pass; must divide the rollouts of a step."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Rows per forward pass; the rest of a mini-batch is accumulated. None: the whole mini-batch."""
    reduction: Reduction = TokenMean()
    critic: Critic = SquaredError()
    """What the critic is trained on, where the advantage needs one."""
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
        engine: "TorchEngine",
        settings: Update,
        objective: PolicyObjective,
        shaping: Shaping,
        seed: int,
        temperature: float,
    ) -> None:
        self.engine, self.settings, self.objective, self.shaping = engine, settings, objective, shaping
        self.seed, self.temperature = seed, temperature

    def __call__(self, credited: Credited) -> dict[str, float]:
        """Metrics, each a mean over the optimiser steps; a `RunError`, and no step, where a loss or gradient is not finite."""
        step = credited.shaped.rollout.step
        order = numpy_generator(self.seed, "minibatch", step)
        seen: list[dict[str, float]] = []
        for _ in range(self.settings.epochs):
            shuffled = order.permutation(len(credited))
            for part in np.array_split(shuffled, self.settings.minibatches):
                # Rows go back to sampling order inside a mini-batch: order must not matter.
                seen.append(self._minibatch(credited.select(sorted(part.tolist()))))
        report = {name: float(np.mean([m[name] for m in seen])) for name in seen[0]}
        del report["logprob_gap"]
        return report | {"sampler_gap": seen[0]["logprob_gap"]}

    def _minibatch(self, batch: Credited) -> dict[str, float]:
        """One optimiser step."""
        import torch

        weights = self.settings.reduction.weights(batch.shaped.rollout.mask).float()
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
        width = max(1, int(micro.shaped.rollout.mask.sum(dim=1).max()))  # beyond it are columns of padding alone
        micro, weights = micro.columns(width).to(self.engine.device), weights[:, :width].to(self.engine.device)
        rollout, objective = micro.shaped.rollout, self.objective
        with self.engine.autocast():
            said = self.engine(rollout, self.temperature, objective.needs_logits, objective.needs_features)
        logprobs, values = said.logprobs, said.values
        output = objective(
            PolicyBatch(logprobs, rollout.old_logprobs, micro.advantages, rollout.mask, said.logits, said.features)
        )
        loss = (output.token_loss * weights).sum()
        if isinstance(self.shaping, KlInLoss):
            reference, coef = micro.shaped.reference, micro.shaped.kl_coef
            loss = loss + self.shaping.loss(logprobs, reference, rollout.mask, coef, weights)
        metrics = {name: masked_mean(m, rollout.mask) for name, m in output.token_metrics.items()}
        if values is not None and rollout.values is not None:
            critic = self.settings.critic
            value_loss = critic(values, rollout.values, micro.returns, rollout.mask)
            loss = loss + critic.coef * (value_loss * weights).sum()
            metrics["value_loss"] = masked_mean(value_loss.detach(), rollout.mask)
        gap = (logprobs.detach() - rollout.old_logprobs).abs()
        metrics["logprob_gap"] = masked_mean(gap, rollout.mask)
        return loss, metrics
