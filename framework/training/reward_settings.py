"""What can be set about the fit of a reward model."""

from pydantic import Field, model_validator

from framework.component import Component
from framework.data.augment import Augment
from framework.data.tables import TableSource
from framework.ensembles import Ensemble, Single
from framework.training.engine import Optimizer
from framework.training.odin import Odin
from framework.training.preference_strength import PreferenceStrength


class FitReward(Component):
    """A reward model with one or more heads, fitted to pairs by Bradley-Terry and calibrated on held-out responses."""

    ensemble: Ensemble = Single()
    """Which model: one head, several heads on one encoder, several models, adapters, or an average."""
    encoder: str | None = None
    """Hub id or folder of the encoder. None: start from the fitted policy, as the source paper does."""
    pairs: TableSource | None = None
    """Your own pairs, in TRL's preference format or as `first`, `second`, `label`. None: those that `label` makes."""
    epochs: int = Field(default=2, ge=1)
    """Passes over the training pairs."""
    batch: int = Field(default=64, ge=1)
    """Pairs per step, over all workers of the fit."""
    max_tokens: int = Field(default=128, ge=4)
    """Tokens of prompt + response that the encoder reads."""
    max_cut_share: float = Field(default=0.05, ge=0, le=1)
    """Share of texts longer than that; above it the fit is refused."""
    optimizer: Optimizer = Optimizer(lr=1.5e-3, warmup_steps=10, decay="linear", weight_decay=0.01)
    score_l2: float = Field(default=0.0, ge=0)
    """Coefficient of the mean squared score, which keeps heads' scales alike; 0.001 in Open-Assistant's models."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Probability that a label is taken to be wrong."""
    augment: Augment | None = None
    """Off-prompt comparisons added to the training pairs (RRM)."""
    strength: PreferenceStrength | None = None
    """Weak labels flipped or softened by the word of a reward model fitted before (Secrets of RLHF II)."""
    odin: Odin | None = None
    """A second head per head that takes up what length explains, and is dropped after the fit."""
    length_calibration: bool = False
    """Subtract from each head what length alone predicts of its scores on reference responses (LOWESS)."""
    compare_on: TableSource | None = None
    """`prompt` and `response` of a trained policy, such as a run's rollouts: disagreement is measured there too."""
    save_every: int = Field(default=100, ge=1)
    """Optimiser steps between saves of an unfinished fit."""

    @model_validator(mode="after")
    def _options_have_a_fit(self) -> "FitReward":
        if self.odin is not None and self.ensemble.kind in ("lora", "averaged"):
            raise ValueError(
                f"odin needs heads that are fitted once: ensemble.kind={self.ensemble.kind} cannot have it; "
                "take single, shared_encoder or full"
            )
        unused = [name for name in ("odin", "augment", "strength") if getattr(self, name) is not None]
        if unused and not self.ensemble.parts():
            raise ValueError(f"{unused[0]} changes a fit, and with ensemble.members=0 nothing is fitted: leave it out")
        return self
