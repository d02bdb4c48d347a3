"""A controller that spends a stated number of nats and then holds there."""

import math
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from framework.kl.controller import KlState, Steering

INITIAL_COST, LEAST_COST, LARGEST_COST = 0.1, 0.01, 10.0
"""Reward units that a whole budget costs at the default start and bounds of the coefficient."""
NARROWEST = 1e-3
"""Share by which the largest coefficient must exceed the least."""
LARGEST_ERROR = 1.5
"""sqrt(nats): from further away the budget is approached at the same price."""


class Budget(Steering):
    """Steers the logarithm of the coefficient by where KL is heading (a proportional-integral controller).

    With the error `e = sqrt(kl) - sqrt(budget)`, held within 1.5 sqrt(nats) and smoothed, each step adds

        gain * (e + lead_steps * (e - previous e))

    to log coef, at most `max_step` either way. The bracket is the error expected `lead_steps` from now if KL goes on as
    it does; the integral gain is `gain`, the proportional gain `gain * lead_steps`. Steering by increments, it does not
    wind up while the coefficient stands at a bound. Both limits of a step are the same: a batch's noise must push up
    and down alike, or it would drive the coefficient by itself. Why sqrt(KL), and costs as bounds: decision 18.
    """

    kind: Literal["budget"] = "budget"
    sets_kl: ClassVar[tuple[str, ...]] = ("budget",)
    budget: float = Field(default=8.0, gt=0)
    """Nats per sequence to reach and hold."""
    initial_coef: float | None = Field(default=None, gt=0)
    """Reward units per nat at the first step. None: 0.1 / budget."""
    gain: float = Field(default=0.1, gt=0)
    """Nepers per step: change of log coef for an expected error of one sqrt(nat)."""
    lead_steps: float = Field(default=18.0, ge=0)
    """Steps to look ahead along the present slope of KL; more damps, and amplifies noise."""
    smoothing: float = Field(default=0.3, ge=0, lt=1)
    """Ratio: how much of the past error is kept at each step; raise it for small batches."""
    max_step: float = Field(default=0.5, gt=0, le=10)
    """Nepers per step: the largest change of log coef."""
    min_coef: float | None = Field(default=None, gt=0)
    """Reward units per nat: the coefficient never goes below. None: 0.01 / budget."""
    max_coef: float | None = Field(default=None, gt=0)
    """Reward units per nat: the coefficient never goes above. None: 10 / budget."""

    @property
    def bounds(self) -> tuple[float, float]:
        low = LEAST_COST / self.budget if self.min_coef is None else self.min_coef
        high = LARGEST_COST / self.budget if self.max_coef is None else self.max_coef
        return low, high

    @model_validator(mode="after")
    def _can_move(self) -> Self:
        start, (low, high) = self.start().coef, self.bounds
        if not low <= start <= high:
            raise ValueError(f"initial_coef={start:g} must lie between min_coef={low:g} and max_coef={high:g}")
        if high < low * (1 + NARROWEST):
            what = f"min_coef={low:g} and max_coef={high:g} lie too close for the coefficient to move"
            raise ValueError(f"{what}: use kind=fixed, or widen them")
        return self

    def most_change(self, steps: int, episodes: int) -> float:
        # The slopes add up to the way from one largest error to the other, however many steps it takes.
        return min(steps * self.max_step, self.gain * LARGEST_ERROR * (steps + 2 * self.lead_steps))

    def slowest(self, steps: int, episodes: int) -> tuple[str, str]:
        held = steps * self.max_step <= self.most_change(steps, episodes)
        return "max_step" if held else "gain", "raise"

    def start(self) -> KlState:
        return KlState(coef=INITIAL_COST / self.budget if self.initial_coef is None else self.initial_coef)

    def next(self, state: KlState, kl_nats: float, episodes: int) -> KlState:
        assert math.isfinite(kl_nats), f"KL is {kl_nats}"
        # k1 is not bounded below: an estimate under zero is one of no KL at all.
        distance = math.sqrt(max(kl_nats, 0.0)) - math.sqrt(self.budget)
        error = min(max(distance, -LARGEST_ERROR), LARGEST_ERROR)
        slope = 0.0
        if state.steps > 0:
            slope = (1 - self.smoothing) * (error - state.last_error)
            error = state.last_error + slope
        expected = error + self.lead_steps * slope
        step = min(max(self.gain * expected, -self.max_step), self.max_step)
        low, high = self.bounds
        coef = min(max(state.coef * math.exp(step), low), high)
        return KlState(coef=coef, last_error=error, steps=state.steps + 1)
