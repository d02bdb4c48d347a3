"""What an ensemble's recipe is written in: parts, which a `RewardFitter` fits."""

from dataclasses import dataclass


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
