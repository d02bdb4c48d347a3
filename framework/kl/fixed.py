"""A coefficient that never moves."""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from framework.kl.controller import Controller, KlState


class Fixed(Controller):
    """The same price per nat at every step."""

    kind: Literal["fixed"] = "fixed"
    coef: float = Field(default=0.05, ge=0, le=1e6)
    """Reward units per nat; 0 switches the penalty off."""

    def start(self) -> KlState:
        return KlState(coef=self.coef)

    def next(self, state: KlState, kl_nats: float, episodes: int) -> KlState:
        return replace(state, steps=state.steps + 1)
