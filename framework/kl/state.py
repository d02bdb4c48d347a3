"""What a KL controller remembers between steps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KlState:
    """Plain numbers, so that JSON keeps them exactly."""

    coef: float
    """Reward units per nat: the coefficient in force."""
    last_error: float = 0.0
    """Relative error `kl / set point - 1` at the last step, smoothed where the controller smooths."""
    steps: int = 0
    """How many measurements the controller has seen."""
