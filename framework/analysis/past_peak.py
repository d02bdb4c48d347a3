"""The fits of gold against d = sqrt(KL), whether gold falls past their peak, and how much of it is lost there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from sklearn.isotonic import IsotonicRegression

from framework.analysis.columns import BEST_OF_N
from framework.analysis.frontier import FORMS, NO_PEAK, Fit, Points, fit_points
from framework.analysis.over_seeds import Estimate, t_quantile
from framework.analysis.table import Curve
from framework.measure import end_of

GRID = 401  # points between the smallest and the largest d at which curves are read
Interval = tuple[float, float]


@dataclass(frozen=True)
class PredictionError:
    """The errors of a fit of this form, or of `isotonic`, the best curve that never falls; see `Fit`."""

    curve: str
    intercept: bool
    rmse: float
    r_squared: float | None
    cv_rmse: float | None


def isotonic_error(points: Points) -> PredictionError:
    """Of the least-squares curve that never falls with d, straight between points and level beyond them."""

    def residuals(fitted: np.ndarray, judged: np.ndarray) -> np.ndarray:
        curve = IsotonicRegression(out_of_bounds="clip").fit(points.d[fitted], points.gold[fitted])
        return np.asarray(points.gold[judged] - curve.predict(points.d[judged]))

    parts = [points.seed == number for number in range(len(points.seeds))]
    everyone = np.ones(len(points.d), dtype=bool)
    rmse, r_squared = points.errors(residuals(everyone, everyone))
    cv_rmse = None
    if len(parts) > 1:
        cv_rmse, _ = points.errors(np.concatenate([residuals(~own, own) for own in parts]))
    return PredictionError("isotonic", True, rmse, r_squared, cv_rmse)


def never_falls_as_well(fit: Fit | PredictionError, isotonic: PredictionError) -> bool:
    """Whether a curve that never falls predicts held-out seeds at least as well as the fit; False with one seed."""
    return fit.cv_rmse is not None and isotonic.cv_rmse is not None and isotonic.cv_rmse <= fit.cv_rmse


def verdict(fit: Fit, isotonic: PredictionError) -> str:
    """Whether held-out seeds speak for a fall of gold, in a sentence."""
    if fit.cv_rmse is None or isotonic.cv_rmse is None:
        return "With one seed nothing is held out: a fall of gold cannot be told from noise of that seed."
    errors = f"error {fit.cv_rmse:.4g} of the fit, {isotonic.cv_rmse:.4g} of the best that never falls"
    gold = fit.curve(np.linspace(*fit.d_range, GRID))
    if never_falls_as_well(fit, isotonic):
        what = "A curve that never falls predicts held-out seeds as well as the fit does"
    elif gold[-1] == gold.max():
        what = "The fit itself never falls in this range"
    else:
        return f"The fit predicts held-out seeds better than any curve that never falls ({errors})."
    return f"{what} ({errors}): no evidence of over-optimisation."


def slope_past(points: Points, d: float) -> Estimate:
    """Slope of gold on sqrt(KL) over the points past d, a straight line per seed, then over seeds; gold per sqrt(nats)."""
    # Who went less than half of the way from d to the largest d has no say: a line through so short a piece is noise.
    halfway = (d + points.d.max()) / 2
    slopes: list[float | None] = []
    for number in range(len(points.seeds)):
        own = (points.seed == number) & (points.d > d)
        if own.sum() > 1 and points.d[own].max() >= halfway and np.ptp(points.d[own]) > 0:
            slopes.append(float(np.polyfit(points.d[own], points.gold[own], 1)[0]))
    return Estimate.of(slopes)


@dataclass(frozen=True)
class OverOptimisation:
    """Read off the fitted curve between the smallest and the largest d seen; intervals are 95% over seeds, and one that
    reaches down to 0 says that a loss is not established."""

    index: float  # the curve's highest gold less its gold at the largest d, in gold's units
    index_interval: Interval | None
    area_lost: float
    """Highest gold less gold, integrated over d from the peak to the largest d: gold's units times sqrt(nats)."""
    area_lost_interval: Interval | None
    kl_nats_at_peak: float | None  # None where the curve has no peak within the d seen
    kl_nats_at_peak_interval: Interval | None
    gold_at_peak: float | None
    gap_at_end: Estimate
    """Standardised proxy less standardised gold, in standard deviations at the start, where each seed's KL was
    largest: over the last fifth of that run, or at the largest n."""


@dataclass(frozen=True, eq=False)
class Frontier:
    """Gold against sqrt(KL) of one curve by one method."""

    method: str
    points: Points
    num_points: int
    num_dropped: int
    fits: list[Fit]
    """The method's own form with and without intercept, then the quadratic; those that the points determine."""
    errors: list[PredictionError]
    verdict: str  # what the held-out seeds say, or why nothing was fitted
    slope_past_peak: Estimate | None  # gold per sqrt(nats), past the peak of the first fit; None where it has none
    losses: OverOptimisation | None

    @property
    def main(self) -> Fit | None:
        """The fit to read: the method's own form, R0 fitted too."""
        return self.fits[0] if self.fits else None


def fit_frontier(points: Points, method: str, curves: Sequence[Curve]) -> Frontier:
    """The fits of these points, and of the curves that they are of what they lose. The form is what arXiv 2210.10760
    found for best-of-n, and for any other method the one that it found for RL; a quadratic in KL is fitted beside it."""
    form = "bon" if method == BEST_OF_N else "rl"
    wanted = [(form, True), (form, False), ("quadratic", True)]
    fits = [fit for name, intercept in wanted if (fit := fit_points(points, FORMS[name], intercept))]
    sizes = len(points.d), points.num_dropped
    if not fits or fits[0].form != form or not fits[0].intercept:
        why = "no row has both gold and KL" if not len(points.d) else "gold is known at too few values of √KL"
        return Frontier(method, points, *sizes, [], [], f"Nothing can be fitted: {why}.", None, None)
    isotonic = isotonic_error(points)
    errors = [PredictionError(fit.form, fit.intercept, fit.rmse, fit.r_squared, fit.cv_rmse) for fit in fits]
    fits = [_with_checked_peak(fit, points, isotonic) for fit in fits]
    main, said = fits[0], verdict(fits[0], isotonic)
    slope = None if main.peak.d is None else slope_past(points, main.peak.d)
    losses = over_optimisation(main, curves)
    return Frontier(method, points, *sizes, fits, [*errors, isotonic], said, slope, losses)


def _with_checked_peak(fit: Fit, points: Points, isotonic: PredictionError) -> Fit:
    """However clear the slopes of a fitted form are, its peak is not supported where the points past it do not clearly
    fall by themselves, or where a curve that never falls predicts held-out seeds as well: a hump fitted to gold that
    only levels off has a clear peak too."""
    if not fit.peak.supported or fit.peak.d is None:
        return fit
    if slope_past(points, fit.peak.d).sign >= 0:
        why = f"the points past the fitted peak (√KL {fit.peak.d:.2f}) do not clearly fall by themselves"
    elif never_falls_as_well(fit, isotonic):
        why = "a curve that never falls predicts held-out seeds as well"
    else:
        return fit
    return replace(fit, peak=replace(fit.peak, supported=False, reason=NO_PEAK + why, d_interval=None))


def over_optimisation(fit: Fit, curves: Sequence[Curve]) -> OverOptimisation:
    """The figures of one fit, and the gap of the curves that it was fitted to."""
    d, peak = np.linspace(*fit.d_range, GRID), fit.peak
    index, area = (float(lost[0]) for lost in losses(d, fit.curve(d)[None]))
    drawn = (None, None) if fit.draws is None else losses(d, fit.draws @ FORMS[fit.form].design(d).T)
    furthest: dict[int, tuple[float, float]] = {}
    for curve in curves:
        gap, at = end_of(curve.series("gap"), curve.axis), end_of(curve.sqrt_kl, curve.axis)
        if gap is not None and at is not None:
            furthest[curve.seed] = max((at, gap), furthest.get(curve.seed, (at, gap)))
    gaps = Estimate.of([gap for _, gap in furthest.values()])
    bounds = [_interval(*each, fit.num_seeds) for each in ((index, drawn[0]), (area, drawn[1]))]
    where = peak.kl_nats, peak.kl_interval, peak.gold
    return OverOptimisation(index, bounds[0], area, bounds[1], *where, gaps)


def losses(
    d: Float[np.ndarray, "d"], gold: Float[np.ndarray, "draws d"]
) -> tuple[Float[np.ndarray, "draws"], Float[np.ndarray, "draws"]]:
    """Highest gold less the last, and highest gold less gold integrated from the highest on (trapezoids), per curve."""
    top = gold.argmax(axis=1)
    below = gold[np.arange(len(gold)), top][:, None] - gold
    below = np.where(np.arange(len(d)) >= top[:, None], below, 0.0)
    return below[:, -1], np.trapezoid(below, d, axis=1)


def _interval(value: float, drawn: Float[np.ndarray, "draws"] | None, num_seeds: int) -> Interval | None:
    """Student's t with the bootstrap's standard error, as for the coefficients; a loss is never below 0."""
    if drawn is None:
        return None
    half = t_quantile(num_seeds - 1) * float(drawn.std()) * math.sqrt(num_seeds / (num_seeds - 1))
    return max(value - half, 0.0), value + half
