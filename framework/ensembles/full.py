"""K whole reward models: the ensemble that cheaper ones are measured against."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from framework.component import Component
from framework.ensembles.recipe import Part

if TYPE_CHECKING:
    from framework.models.reward_heads import Member
    from framework.training.reward_fitter import RewardFitter


class Full(Component):
    """K models, each with its own head, seed and order of the pairs (Coste et al., arXiv 2310.02743).

    All see the same pairs: resampling them was worse there. Member 0 is the `single` model.
    """

    kind: Literal["full"] = "full"
    members: int = Field(default=5, ge=0, le=1000)
    """Models to be fitted."""
    published: tuple[str, ...] = ()
    """Hub ids or folders of finished reward models (sequence classification) that join as members."""

    @model_validator(mode="after")
    def _some(self) -> "Full":
        if not self.num_heads:
            raise ValueError("members=0 and nothing published: there is no reward model to make")
        return self

    @property
    def num_heads(self) -> int:
        return self.members + len(self.published)

    def parts(self) -> dict[str, Part]:
        """The fits of this recipe, by name."""
        return {f"member_{k}": Part(order=k) for k in range(self.members)}

    def fit(self, fitter: "RewardFitter") -> "list[Member]":
        """The fitted members, then the published ones as they are."""
        from framework.models.published import PublishedReward

        # First, so that a wrong path costs no fit.
        published = [PublishedReward.from_published(path) for path in self.published]
        fitted = [fitter.fit(fitter.start(member=k), f"member_{k}") for k in range(self.members)]
        return [*fitted, *published]
