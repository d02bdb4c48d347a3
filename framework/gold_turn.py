"""When to stop for gold's sake: a sequential test of whether gold has turned.

Gold is costly and noisy, and the best so far is partly luck: to stop at the first drop would stop nearly
every run. Here a run stops once some earlier gold is higher than the present one with a stated confidence,
which holds for the whole run, however often one looks.
"""

import math
from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from pydantic import Field
from scipy.special import ndtri
from torch import Tensor

from framework.component import Component


@dataclass(frozen=True)
class GoldState:
    """What the test remembers: plain numbers, so that JSON keeps them exactly."""

    means: tuple[float, ...] = ()
    """Of each look so far, gold scorer's units."""
    variances: tuple[float, ...] = ()
    """Of each look's mean."""
    open_means: tuple[float, ...] = ()
    """Of the measurements since the last look."""
    open_variances: tuple[float, ...] = ()
    turned: bool = False
    """Whether gold has turned: the run is to end here."""


class GoldTurn(Component):
    """Ends a run once gold is lower than it was, by a test that is repeated at every look.

    A look is the mean of `measurements` gold measurements. Look n is compared with each of the n - 1 before
    it by a one-sided z test at level `(1 - confidence) * 6 / (pi (n - 1))^2 / (n - 1)`. The levels sum to
    `1 - confidence` over any number of looks, so (Bonferroni) a run whose gold never falls is stopped with
    at most that probability.
    """

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Probability that a run whose gold never falls is not stopped."""
    measurements: int = Field(default=10, ge=1)
    """Gold measurements that make one look; more see smaller falls, and see them later."""

    def next(self, state: GoldState, gold: Float[Tensor, "B"], group: Int[Tensor, "B"]) -> GoldState:
        """The state after gold was measured on one step's rows.

        Args:
            group: rows of one prompt share a number. They are not independent, so the error of the mean is
                that of prompts: `s / sqrt(P)` with s the sample deviation of the P prompts' means.
        """
        mean, variance = _mean_of_prompts(gold, group)
        means, variances = (*state.open_means, mean), (*state.open_variances, variance)
        if len(means) < self.measurements:
            return replace(state, open_means=means, open_variances=variances)
        looks = GoldState(
            (*state.means, math.fsum(means) / len(means)),
            (*state.variances, math.fsum(variances) / len(means) ** 2),
        )
        return replace(looks, turned=self._has_turned(looks))

    def _has_turned(self, state: GoldState) -> bool:
        """Whether an earlier look is clearly above the last one."""
        earlier = len(state.means) - 1
        if earlier == 0:
            return False
        level = (1 - self.confidence) * 6 / (math.pi * earlier) ** 2 / earlier
        threshold = -float(ndtri(level))
        now, variance_now = state.means[-1], state.variances[-1]
        return any(
            mean - now > threshold * math.sqrt(variance + variance_now)
            for mean, variance in zip(state.means[:-1], state.variances[:-1], strict=True)
        )


def _mean_of_prompts(gold: Float[Tensor, "B"], group: Int[Tensor, "B"]) -> tuple[float, float]:
    """Mean over prompts of their mean gold, and its variance; infinite for one prompt, as it is not known."""
    _, prompt = group.unique(return_inverse=True)
    counts = prompt.bincount().double()
    means = prompt.bincount(weights=gold.double()) / counts
    if len(means) < 2:
        return float(means.mean()), math.inf
    return float(means.mean()), float(means.var(correction=1)) / len(means)
