"""What an ensemble's recipe is written in: parts to be fitted, and the one who fits them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from framework.models.reward_heads import Member, RewardHeads


@dataclass(frozen=True)
class Part:
    """One fit of a recipe: what differs from the others. Recipes list their parts before they begin."""

    order: int = 0
    """Which shuffle of the pairs."""
    lr_factor: float = 1.0
    """Of the learning rate."""
    epochs: int | None = None
    """Passes over its pairs; None: as `fit_reward.epochs`."""
    pairs: tuple[float, float] = (0.0, 1.0)
    """Which of the training pairs: from and to, as shares of them in a fixed shuffled order."""
    bootstrap: bool = False
    """Each head sees its own resample of the pairs."""


class Fitter(Protocol):
    """Builds members at their start and fits them to the pairs."""

    def start(
        self, member: int, heads: int = 1, init_scales: tuple[float, ...] = (1.0,), dropout: float = 0.0
    ) -> "RewardHeads":
        """The encoder as it is before any reward fit, with heads drawn from the member's own seed."""
        ...

    def seed_member(self, member: int) -> None:
        """Set torch's global generator to the member's own seed, before something is drawn from it."""
        ...

    def fit(self, module: "Member", name: str) -> None:
        """Fit `module` in place as the recipe's part `name`; takes up where a stopped fit of it left off."""
        ...
