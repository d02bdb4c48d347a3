"""One encoder, one head: an ordinary reward model."""

from typing import TYPE_CHECKING, ClassVar, Literal

from framework.component import Component
from framework.ensembles.recipe import Part

if TYPE_CHECKING:
    from framework.models.reward_heads import Member
    from framework.training.reward_fitter import RewardFitter


class Single(Component):
    """One reward model; the same as `shared_encoder` with one head."""

    kind: Literal["single"] = "single"
    num_heads: ClassVar[int] = 1

    def parts(self) -> dict[str, Part]:
        """The fits of this recipe, by name."""
        return {"model": Part()}

    def fit(self, fitter: "RewardFitter") -> "list[Member]":
        """The fitted members."""
        return [fitter.fit(fitter.start(member=0), "model")]
