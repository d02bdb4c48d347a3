"""A fixed coefficient, and an end to the run once a budget of nats is spent."""

import math
from typing import ClassVar, Literal

from pydantic import Field

from framework.kl.controller import Controller, KlState


class Stop(Controller):
    """Leaves the price alone and ends training at the first step whose smoothed KL has reached the budget.

    On the curve of gold against KL it stops where a penalty would hold (both are alike: Gao et al., arXiv 2210.10760).
    """

    kind: Literal["stop"] = "stop"
    sets_kl: ClassVar[tuple[str, ...]] = ("budget",)
    budget: float = Field(default=8.0, gt=0)
    """Nats per sequence that may be spent."""
    coef: float = Field(default=0.0, ge=0, le=1e6)
    """Reward units per nat, at every step; 0 switches the penalty off."""
    smoothing: float = Field(default=0.5, ge=0, lt=1)
    """Ratio: how much of the past KL is kept at each step, so that one noisy batch does not end a run."""

    def start(self) -> KlState:
        return KlState(coef=self.coef, last_error=-1.0)

    def next(self, state: KlState, kl_nats: float, episodes: int) -> KlState:
        assert math.isfinite(kl_nats), f"KL is {kl_nats}"
        error = self.smoothing * state.last_error + (1 - self.smoothing) * (kl_nats / self.budget - 1)
        return KlState(coef=self.coef, last_error=error, steps=state.steps + 1, spent=error >= 0)
