"""One encoder, K linear heads: an ensemble for the price of one model."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from framework.component import Component
from framework.ensembles.recipe import Part

if TYPE_CHECKING:
    from framework.models.reward_heads import Member
    from framework.training.reward_fitter import RewardFitter


class SharedEncoder(Component):
    """K linear heads on one encoder (Ahmed et al., arXiv 2406.01013).

    The paper's code was not released and it does not say whether the encoder is trained with the heads or
    frozen; both are here. What makes heads differ is their start, and `bootstrap` and `dropout` where set.
    """

    kind: Literal["shared_encoder"] = "shared_encoder"
    heads: int = Field(default=5, ge=1, le=1000)
    """K."""
    freeze_encoder: bool = False
    """Fit the heads alone."""
    bootstrap: bool = True
    """Each head sees its own resample of the pairs (Poisson(1) counts); one head sees every pair once."""
    init_scale: float | tuple[float, ...] = 1.0
    """Initial weights of a head are N(0, init_scale^2 / (H + 1)); one number, or one per head."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of features hidden from a head in training, drawn for each head apart."""

    @model_validator(mode="after")
    def _scales(self) -> "SharedEncoder":
        scales = self.init_scales
        if len(scales) not in (1, self.heads):
            raise ValueError(f"init_scale has {len(scales)} numbers for heads={self.heads}: give one, or one per head")
        if not min(scales) > 0:
            raise ValueError(f"init_scale={min(scales)} must be greater than 0: heads that start alike stay alike")
        return self

    @property
    def init_scales(self) -> tuple[float, ...]:
        """One for all heads, or one per head."""
        return self.init_scale if isinstance(self.init_scale, tuple) else (self.init_scale,)

    @property
    def num_heads(self) -> int:
        return self.heads

    def parts(self) -> dict[str, Part]:
        """The fits of this recipe, by name."""
        return {"model": Part(bootstrap=self.bootstrap and self.heads > 1)}

    def fit(self, fitter: "RewardFitter") -> "list[Member]":
        """The fitted members: one, with K heads."""
        model = fitter.start(0, self.heads, self.init_scales, self.dropout)
        model.freeze_encoder(self.freeze_encoder)
        return [fitter.fit(model, "model")]
