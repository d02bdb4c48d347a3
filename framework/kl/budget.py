"""A controller that spends a stated number of nats and then holds there."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from framework.component import Component
from framework.kl.state import KlState


class Budget(Component):
    """Steers the logarithm of the coefficient by where KL is heading (a proportional-integral controller).

    With the relative error `e = kl / budget - 1`, held in [-1, 1] and smoothed, each step adds

        gain * (e + lead_steps * (e - previous e))

    to log coef, at most `max_step` up and `gain` down. The bracket is the error expected `lead_steps` from
    now if KL goes on as it does; written as a sum of past errors it is a PI controller whose integral gain is
    `gain` and whose proportional gain is `gain * lead_steps`. Steering by increments, it does not wind up
    while the coefficient stands at a bound. The defaults were chosen on simulated policies whose KL rises at
    most so fast per step and settles where penalty and reward balance (tests/unit/test_kl.py).
    """

    kind: Literal["budget"] = "budget"
    budget: float = Field(default=8.0, gt=0)
    """Nats per sequence to reach and hold."""
    initial_coef: float = Field(default=0.05, gt=0)
    """Reward units per nat at the first step."""
    gain: float = Field(default=0.2, gt=0)
    """Nepers per step: change of log coef for an expected error of one budget."""
    lead_steps: float = Field(default=30.0, ge=0)
    """Steps to look ahead along the present slope of KL; more damps, and amplifies noise."""
    smoothing: float = Field(default=0.9, ge=0, lt=1)
    """Ratio: how much of the past error is kept at each step; raise it for small batches."""
    max_step: float = Field(default=0.5, gt=0)
    """Nepers per step: the largest change of log coef."""
    min_coef: float = Field(default=1e-4, gt=0)
    """Reward units per nat: the coefficient never goes below."""
    max_coef: float = Field(default=10.0, gt=0)
    """Reward units per nat: the coefficient never goes above."""

    @model_validator(mode="after")
    def _bounds_hold_the_start(self) -> Self:
        if not self.min_coef <= self.initial_coef <= self.max_coef:
            raise ValueError("initial_coef must lie between min_coef and max_coef")
        return self

    @property
    def set_point(self) -> float | None:
        """Nats per sequence that the controller aims at."""
        return self.budget

    def start(self) -> KlState:
        """The state before the first step."""
        return KlState(coef=self.initial_coef)

    def next(self, state: KlState, kl_nats: float, episodes: int) -> KlState:
        """The state after a step that measured `kl_nats`; the number of sequences does not matter."""
        assert math.isfinite(kl_nats), f"KL is {kl_nats}"
        error = min(max(kl_nats / self.budget - 1, -1.0), 1.0)
        slope = 0.0
        if state.steps > 0:
            slope = (1 - self.smoothing) * (error - state.last_error)
            error = state.last_error + slope
        expected = max(error + self.lead_steps * slope, -1.0)
        step = min(max(self.gain * expected, -self.max_step), self.max_step)
        coef = min(max(state.coef * math.exp(step), self.min_coef), self.max_coef)
        return KlState(coef=coef, last_error=error, steps=state.steps + 1)
