"""How well curves of gold against sqrt(KL) predict, and whether a curve that never falls does as well."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from sklearn.isotonic import isotonic_regression

from framework.analysis.comparison import Estimate
from framework.analysis.frontier import Fit, Points

ISOTONIC = "isotonic"
CELLS = 400
"""Of d, between the smallest and the largest seen, for the isotonic curve."""


@dataclass(frozen=True)
class Goodness:
    """A curve's errors, in gold's units."""

    curve: str
    """Form of the fit, or `isotonic`: the best curve that never falls."""
    intercept: bool
    rmse: float
    r_squared: float | None
    cv_rmse: float | None
    """On the points of a seed left out of the fit, each in turn; None with one seed."""


def goodness(fits: Sequence[Fit], points: Points) -> list[Goodness]:
    """One row per fit, then the isotonic curve through the same points."""
    rows = [Goodness(fit.form, fit.intercept, fit.rmse, fit.r_squared, fit.cv_rmse) for fit in fits]
    return [*rows, isotonic_goodness(points)]


def isotonic_goodness(points: Points) -> Goodness:
    """The least-squares curve that never falls with d: level within each cell of d, straight across cells not seen.

    Beyond the cells that it saw it stays level. All points count: of a cell, only their sums are needed.
    """
    sums, groups = _CellSums.of(points), len(points.seeds)
    everyone = np.ones(groups, dtype=bool)
    error = sums.squared_error(everyone, everyone)
    left_out = (
        [sums.squared_error(~held_out, held_out) for held_out in np.eye(groups, dtype=bool)]
        if groups > 1
        else []
    )
    return Goodness(
        ISOTONIC,
        intercept=True,
        rmse=points.rmse(error),
        r_squared=points.r_squared(error),
        cv_rmse=points.rmse(sum(left_out)) if left_out else None,
    )


def never_falls_as_well(fit: Fit | Goodness, isotonic: Goodness) -> bool:
    """Whether a curve that never falls predicts held-out seeds at least as well as the fit; False with one seed."""
    return fit.cv_rmse is not None and isotonic.cv_rmse is not None and isotonic.cv_rmse <= fit.cv_rmse


def verdict(fit: Fit, isotonic: Goodness) -> str:
    """Whether held-out seeds speak for a fall of gold, in a sentence."""
    if fit.cv_rmse is None or isotonic.cv_rmse is None:
        return "With one seed nothing is held out: a fall of gold cannot be told from noise of that seed."
    errors = f"error {fit.cv_rmse:.4g} of the fit, {isotonic.cv_rmse:.4g} of the best that never falls"
    if never_falls_as_well(fit, isotonic):
        what = "A curve that never falls predicts held-out seeds as well as the fit does"
    elif not _falls(fit):
        what = "The fit itself never falls in this range"
    else:
        return f"The fit predicts held-out seeds better than any curve that never falls ({errors})."
    return f"{what} ({errors}): no evidence of over-optimisation."


def _falls(fit: Fit) -> bool:
    """Whether the fitted curve ends below its highest point within the d seen."""
    gold = fit.curve(np.linspace(*fit.d_range, CELLS))
    return bool(gold[-1] < gold.max())


def slope_past(points: Points, d: float) -> Estimate:
    """Slope of gold on sqrt(KL) over the points past d, a straight line per seed, then over seeds; gold per sqrt(nats).

    It leans on no form: a fitted hump falls past its peak even where gold only levels off. A seed that went less than
    half of the way from d to the largest d seen has no say: a line through so short a piece is mostly noise.
    """
    halfway = (d + points.d.max()) / 2
    slopes: list[float | None] = []
    for number in range(len(points.seeds)):
        own = (points.seed == number) & (points.d > d)
        if own.sum() > 1 and points.d[own].max() >= halfway and np.ptp(points.d[own]) > 0:
            centred = points.d[own] - points.d[own].mean()
            slopes.append(float(centred @ points.gold[own] / (centred @ centred)))
    return Estimate.of(slopes)


@dataclass(frozen=True, eq=False)
class _CellSums:
    """Count, sum and sum of squares of gold less its mean, by seed and cell of d.

    Less its mean, since squares of a gold that is large and hardly varies would cancel to rounding.
    """

    counts: Float[np.ndarray, "seeds cells"]
    golds: Float[np.ndarray, "seeds cells"]
    squares: Float[np.ndarray, "seeds cells"]

    @classmethod
    def of(cls, points: Points) -> "_CellSums":
        low, high, gold = points.d.min(), points.d.max(), points.gold - points.gold.mean()
        cell = np.minimum((points.d - low) / max(high - low, 1e-12) * CELLS, CELLS - 1).astype(int)
        place, shape = points.seed * CELLS + cell, (len(points.seeds), CELLS)
        sums = (
            np.bincount(place, weights=weights, minlength=math.prod(shape)).reshape(shape)
            for weights in (np.ones(len(cell)), gold, np.square(gold))
        )
        return cls(*sums)

    def squared_error(self, fitted: Bool[np.ndarray, "seeds"], judged: Bool[np.ndarray, "seeds"]) -> float:
        """Of the curve through the fitted seeds' points, summed over the points of the judged ones."""
        counts, golds = self.counts[fitted].sum(axis=0), self.golds[fitted].sum(axis=0)
        seen = np.flatnonzero(counts)
        levels = isotonic_regression(golds[seen] / counts[seen], sample_weight=counts[seen])
        curve = np.interp(np.arange(CELLS), seen, levels)
        own = self.squares[judged] - 2 * curve * self.golds[judged] + curve**2 * self.counts[judged]
        return max(float(own.sum()), 0.0)
