"""A coefficient that never moves."""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from framework.component import Component
from framework.kl.state import KlState


class Fixed(Component):
    """The same price per nat at every step."""

    kind: Literal["fixed"] = "fixed"
    coef: float = Field(default=0.05, ge=0)
    """Reward units per nat; 0 switches the penalty off."""

    @property
    def set_point(self) -> float | None:
        """None: no KL is aimed at."""
        return None

    def start(self) -> KlState:
        """The state before the first step."""
        return KlState(coef=self.coef)

    def next(self, state: KlState, kl_nats: float, episodes: int) -> KlState:
        """The state after a step: the same coefficient."""
        return replace(state, steps=state.steps + 1)
