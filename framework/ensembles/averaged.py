"""Several fits averaged into one model: an ensemble of weights, not of scores."""

import copy
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from framework.component import Component
from framework.ensembles.recipe import Part

if TYPE_CHECKING:
    from framework.models.reward_heads import Member, RewardHeads
    from framework.training.reward_fitter import RewardFitter


class Averaged(Component):
    """Mean of the weights of M models (WARM; Rame et al., arXiv 2401.12187). It scores as one model.

    All begin with the same head, fitted first on the frozen encoder: models that begin apart do not average.
    They differ in the order of the pairs and in the learning rate. There is one score, so there is no
    disagreement to see, and every aggregation is the same.
    """

    kind: Literal["averaged"] = "averaged"
    num_heads: ClassVar[int] = 1
    members: int = Field(default=5, ge=2, le=1000)
    """M."""
    lr_factors: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(1.0, 0.5, 2.0), min_length=1)
    """Learning rates as multiples of `fit_reward.optimizer.lr`; members take them in turn."""

    def parts(self) -> dict[str, Part]:
        """The fits of this recipe, by name."""
        factors = [self.lr_factors[k % len(self.lr_factors)] for k in range(self.members)]
        fits = {f"member_{k}": Part(order=k + 1, lr_factor=factor) for k, factor in enumerate(factors)}
        return {"probe": Part(epochs=1)} | fits

    def fit(self, fitter: "RewardFitter") -> "list[Member]":
        """The fitted members: one, the mean."""
        probe = fitter.start(member=0)
        probe.freeze_encoder(True)
        fitter.fit(probe, "probe")
        probe.freeze_encoder(False)
        return [averaged([fitter.fit(copy.deepcopy(probe), f"member_{k}") for k in range(self.members)])]


def averaged(models: "list[RewardHeads]") -> "RewardHeads":
    """A model whose every weight is the mean of theirs."""
    import torch

    mean = copy.deepcopy(models[0])
    states = [dict(model.named_parameters()) for model in models]
    with torch.no_grad():
        for name, parameter in mean.named_parameters():
            parameter.copy_(torch.stack([state[name] for state in states]).mean(dim=0))
    return mean
