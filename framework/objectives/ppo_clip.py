"""Proximal policy optimisation with the clipped surrogate."""

from typing import Literal

from pydantic import Field

from framework.masked import keep
from framework.objectives.objective import PolicyObjective, log_ratio, ratio_metrics
from framework.types import ObjectiveOutput, PolicyBatch


class PpoClip(PolicyObjective):
    """Importance-weighted policy gradient that stops paying for large steps (PPO, arXiv 1707.06347)."""

    kind: Literal["ppo_clip"] = "ppo_clip"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """Ratio: how far below 1 it may fall before it earns nothing more."""
    clip_high: float = Field(default=0.2, gt=0, lt=1)
    """Ratio: how far above 1 it may rise before it earns nothing more."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Ratio: a cap on what a token of negative advantage may cost (dual clip, arXiv 1912.09729); null
    leaves it uncapped."""

    def __call__(self, batch: PolicyBatch) -> ObjectiveOutput:
        """Loss of each token: `-min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A)`; 0 at padding.

        With dual clip, where A < 0, at most `-dual_clip A`.
        """
        difference = log_ratio(batch)
        ratio = difference.exp()
        advantages = keep(batch.advantages, batch.mask)
        plain = -advantages * ratio
        clipped = -advantages * ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        loss = plain.maximum(clipped)
        metrics = ratio_metrics(difference) | {"clip_fraction": (clipped > plain).to(loss.dtype)}
        if self.dual_clip is not None:
            ceiling = -advantages * self.dual_clip
            capped = (advantages < 0) & (loss > ceiling)
            loss = ceiling.where(capped, loss)
            metrics["dual_clip_fraction"] = capped.to(loss.dtype)
        return ObjectiveOutput(token_loss=keep(loss, batch.mask), token_metrics=metrics)
