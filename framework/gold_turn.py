"""When to stop for gold's sake: a sequential test of whether gold has turned.

The best so far is partly luck: to stop at the first drop would stop nearly every run.
"""

import math
from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from pydantic import Field

from framework.batch_mean import batch_mean
from framework.component import Component
from framework.tensor import Tensor


@dataclass(frozen=True)
class GoldState:
    """What the test remembers: plain numbers, so that JSON keeps them exactly."""

    means: tuple[float, ...] = ()
    """Of each look so far, gold scorer's units."""
    variances: tuple[float, ...] = ()
    """Of each look's mean, squared gold units; infinite where not known."""
    degrees: tuple[int, ...] = ()
    """Degrees of freedom of each of these variances: prompts less one, summed over measurements."""
    open_means: tuple[float, ...] = ()
    """Of the measurements since the last look."""
    open_variances: tuple[float, ...] = ()
    open_degrees: tuple[int, ...] = ()
    turned: bool = False
    """Whether gold has turned: the run is to end here."""


class GoldTurn(Component):
    """Ends a run once gold is lower than it was, by a test that is repeated at every look.

    A look is the mean of `measurements` gold measurements. Look n is compared with each of the n - 1 before it by a
    one-sided t test at level `(1 - confidence) * 6 / (pi (n - 1))^2 / (n - 1)`. The levels sum to `1 - confidence` over
    any number of looks, so (Bonferroni) a run whose gold never falls is stopped with at most that probability, where
    prompts' gold is near enough to normal.

    Few prompts estimate a variance badly, and so far in the tails that decides: it is pooled over all looks. A look
    whose own is larger keeps its own, as gold may spread while a policy learns. A pooled variance of nothing, as of
    whole-numbered gold that has not differed yet, is no knowledge: nothing stops then.
    """

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Probability that a run whose gold never falls is not stopped."""
    measurements: int = Field(default=10, ge=1)
    """Gold measurements that make one look; more see smaller falls, and see them later."""

    def refuse_idle(self, measured: int, prompts: int) -> None:
        """Refuse a test that can never end a run of `measured` gold measurements and `prompts` prompts a step."""
        if prompts < 2:
            what = "one prompt a step does not tell how much gold varies"
            raise ValueError(f"train.stop_at_gold_turn: {what}: set train.prompts_per_step >= 2")
        if measured < 2 * self.measurements:
            raise ValueError(
                f"train.stop_at_gold_turn compares looks of {self.measurements} gold measurements, and this run makes "
                f"{measured}, too few for two looks: measure gold at {2 * self.measurements} steps or more (train.gold_at, "
                "train.gold_every, train.steps), or lower train.stop_at_gold_turn.measurements"
            )

    def next(self, state: GoldState, gold: Float[Tensor, "B"], group: Int[Tensor, "B"]) -> GoldState:
        """The state after gold was measured on one step's rows; those of one prompt share a number in `group`."""
        measured = batch_mean(gold, group)
        means = (*state.open_means, measured.mean)
        variances = (*state.open_variances, measured.variance)
        degrees = (*state.open_degrees, measured.prompts - 1)
        if len(means) < self.measurements:
            return replace(state, open_means=means, open_variances=variances, open_degrees=degrees)
        looks = GoldState(
            (*state.means, math.fsum(means) / len(means)),
            (*state.variances, math.fsum(variances) / len(means) ** 2),
            (*state.degrees, sum(degrees)),
        )
        return replace(looks, turned=self._has_turned(looks))

    def _has_turned(self, state: GoldState) -> bool:
        """Whether an earlier look is clearly above the last one."""
        from scipy.special import stdtrit

        earlier = len(state.means) - 1
        known = [pair for pair in zip(state.variances, state.degrees, strict=True) if math.isfinite(pair[0])]
        degrees = sum(freedom for _, freedom in known)
        pooled = math.fsum(variance * freedom for variance, freedom in known) / max(degrees, 1)
        if earlier == 0 or degrees == 0 or pooled == 0:
            return False
        level = (1 - self.confidence) * 6 / (math.pi * earlier) ** 2 / earlier
        threshold = -float(stdtrit(degrees, level))
        variances = [max(variance, pooled) for variance in state.variances]
        return any(
            mean - state.means[-1] > threshold * math.sqrt(variance + variances[-1])
            for mean, variance in zip(state.means[:-1], variances[:-1], strict=True)
        )
