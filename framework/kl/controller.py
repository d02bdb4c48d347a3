"""What controllers of the KL coefficient share: what they remember, and what they can be asked."""

import math
from dataclasses import dataclass
from typing import ClassVar

from framework.component import Component

LEAST_EFFECT = 1e-4
"""Nepers by which a steered coefficient must be able to move within a run, and reward units that it must be able to cost."""


@dataclass(frozen=True)
class KlState:
    """Plain numbers, so that JSON keeps them exactly."""

    coef: float
    """Reward units per nat: the coefficient in force."""
    last_error: float = 0.0
    """How far KL was from the set point at the last step, in the controller's own measure and smoothed where it smooths."""
    steps: int = 0
    """How many measurements the controller has seen."""
    spent: bool = False
    """Whether the run has used up what it may spend, and is to end here."""


class Controller(Component):
    """Base of every controller: one that aims at no KL and need not be able to steer."""

    sets_kl: ClassVar[tuple[str, ...]] = ()
    """The settings that choose a point of one curve of gold against KL; another value of any other makes another curve."""

    @property
    def set_point(self) -> float | None:
        """Nats per sequence that are aimed at, or may be spent; None where no KL is."""
        return getattr(self, self.sets_kl[0]) if self.sets_kl else None

    def start(self) -> KlState:
        """The state before the first step."""
        raise NotImplementedError

    def next(self, state: KlState, kl_nats: float, episodes: int) -> KlState:
        """The state after a step that measured `kl_nats` (mean nats per sequence) on `episodes` sequences."""
        raise NotImplementedError

    def refuse_idle(self, steps: int, rollouts: int) -> None:
        """Refuse a controller that would steer nothing in a run of `steps` steps of `rollouts` sequences each."""


class Steering(Controller):
    """A controller that moves the coefficient."""

    def most_change(self, steps: int, episodes: int) -> float:
        """Nepers: the most that log coef can move over that many steps of `episodes` sequences each."""
        raise NotImplementedError

    def slowest(self, steps: int, episodes: int) -> tuple[str, str]:
        """The setting that holds the coefficient back most, and how to mend it."""
        raise NotImplementedError

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest coefficient, reward units per nat."""
        return 0.0, math.inf

    def refuse_idle(self, steps: int, rollouts: int) -> None:
        most = self.most_change(steps, rollouts)
        if most < LEAST_EFFECT:
            name, mend = self.slowest(steps, rollouts)
            what = f"over the {steps * rollouts} sequences of this run the coefficient can move by {most:.3%} at most"
            raise ValueError(f"train.kl.{name}={getattr(self, name):g}: {what}, which steers nothing: {mend} it")
        # Nobody trains at under 1e-4 nats for long: below one nat, what a nat costs is what counts.
        start, nats = self.start().coef, max(self.set_point or 0.0, 1.0)
        highest = min(start * math.exp(min(most, 700.0)), self.bounds[1])
        if highest * nats < LEAST_EFFECT:
            what = f"train.kl.initial_coef={start:g}: in this run the coefficient can come to {highest:.3g} at most"
            cost = f"{nats:g} nats cost {highest * nats:.3g} reward units"
            raise ValueError(f"{what}, at which {cost}, which steers nothing: raise it")
