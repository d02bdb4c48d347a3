"""What a KL controller remembers between steps."""

from dataclasses import dataclass


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
