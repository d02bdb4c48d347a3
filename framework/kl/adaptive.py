"""The proportional controller of Ziegler et al."""

import math
from typing import ClassVar, Literal

from pydantic import Field

from framework.kl.controller import KlState, Steering

ERROR_CLIP = 0.2


class Adaptive(Steering):
    """Raises the coefficient while KL is above the target, lowers it below (arXiv 1909.08593, section 2.2).

    `coef *= 1 + clip(kl / target - 1, -0.2, 0.2) * episodes / horizon`: slow. In a short run, use `budget`.
    """

    kind: Literal["adaptive"] = "adaptive"
    sets_kl: ClassVar[tuple[str, ...]] = ("target",)
    initial_coef: float = Field(default=0.1, gt=0)
    """Reward units per nat at the first step."""
    target: float = Field(default=6.0, gt=0)
    """Nats per sequence to aim at."""
    horizon: float = Field(default=10_000, gt=0)
    """Sequences over which the coefficient may change by a fifth."""

    def most_change(self, steps: int, episodes: int) -> float:
        return steps * math.log1p(ERROR_CLIP * min(episodes / self.horizon, 1.0))

    def slowest(self, steps: int, episodes: int) -> tuple[str, str]:
        return "horizon", "lower"

    def start(self) -> KlState:
        return KlState(coef=self.initial_coef)

    def next(self, state: KlState, kl_nats: float, episodes: int) -> KlState:
        assert math.isfinite(kl_nats), f"KL is {kl_nats}"
        error = kl_nats / self.target - 1
        clipped = min(max(error, -ERROR_CLIP), ERROR_CLIP)
        # A batch larger than five horizons would otherwise make the coefficient negative.
        share = min(episodes / self.horizon, 1.0)
        return KlState(coef=state.coef * (1 + clipped * share), last_error=error, steps=state.steps + 1)
