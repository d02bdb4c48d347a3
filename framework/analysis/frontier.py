"""Gold as a function of d = sqrt(KL): the points of all seeds, the forms that are fitted to them with intervals over seeds,
and where a fit peaks.

Each form is R0 + alpha * first(d) - beta * second(d): linear in its coefficients. Its slope has the sign of
alpha - beta * x with a rising x(d), which is all that is needed to find the peak and how sure of it one may be. Sizes:
`points` over all seeds, `seeds`, `draws` bootstrap samples of the seeds. Coefficients are in the order of
`COEFFICIENTS`: gold's units, and those over powers of sqrt(nats per sequence).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from framework.analysis.over_seeds import t_quantile
from framework.analysis.table import Curve
from framework.seeding import numpy_generator

DRAWS = 2000  # bootstrap samples of the seeds
COEFFICIENTS = ("r0", "alpha", "beta")
RELATIVE_RANK = 1e-10  # of a sample's normal equations: directions this much weaker than the strongest are left at zero
ROUNDING = 1e-12  # of the largest gold in size: differences below this are those of floating point
TRUSTED_FROM = 0.05
"""Share of the largest d below which slopes are not read: KL's estimate is mostly noise there, and the RL form's
slope grows without bound."""
NO_PEAK = "no peak in this range: "


@dataclass(frozen=True)
class Form:
    """A curve through R0 at d = 0."""

    name: str
    formula: str  # for a legend or a table, R0 left out
    basis: Callable[[np.ndarray], np.ndarray]
    """What alpha and beta are multiplied with in gold, first(d) and -second(d) [points 2]."""
    ratio_at: Callable[[float], float]
    """The alpha / beta with which gold's slope is zero at d: the x of the slope's sign, alpha - beta * x."""
    flat_at: Callable[[float], float]
    """Its inverse: the d at which the slope is zero; 0 where it is negative from the start, infinite past any float."""

    def design(self, d: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points 3"]:
        """What R0, alpha and beta are multiplied with in gold."""
        return np.concatenate([np.ones((len(d), 1)), self.basis(d)], axis=1)


# The first two are those of arXiv 2210.10760, and the parabola in KL itself is what they are held against.
FORMS: dict[str, Form] = {form.name: form for form in (
    Form("bon", "d (α − β d)", lambda d: np.stack([d, -(d**2)], axis=1), lambda d: 2 * d, lambda ratio: max(ratio, 0.0) / 2),
    Form(
        "rl", "d (α − β log d)", lambda d: np.stack([d, -(d * np.log(np.where(d > 0, d, 1.0)))], axis=1),
        lambda d: 1 + math.log(d) if d > 0 else -math.inf, lambda ratio: math.exp(ratio - 1) if ratio < 700 else math.inf,
    ),
    Form(
        "quadratic", "α d² − β d⁴", lambda d: np.stack([d**2, -(d**4)], axis=1),
        lambda d: 2 * d**2, lambda ratio: math.sqrt(max(ratio, 0.0) / 2),
    ),
)}  # fmt: skip


@dataclass(frozen=True)
class Peak:
    """The peak of a fitted curve, in sqrt(nats per sequence), nats per sequence and gold's units."""

    supported: bool  # whether gold clearly rises somewhere below it and falls somewhere above it, within the d seen
    reason: str  # in words, for a reader
    d: float | None = None  # the fitted curve's own peak, where it has one within the d seen, supported or not
    kl_nats: float | None = None
    gold: float | None = None
    d_interval: tuple[float, float] | None = None
    """95%: every d at which a slope of zero cannot be ruled out (Fieller); None where unsupported."""

    @property
    def kl_interval(self) -> tuple[float, float] | None:
        """The same in nats per sequence."""
        return self.d_interval and (self.d_interval[0] ** 2, self.d_interval[1] ** 2)


@dataclass(frozen=True, eq=False)
class Points:
    """What a curve is fitted to: every step (every n) of every run and seed that has gold and KL, as measured there."""

    d: Float[np.ndarray, "points"]
    gold: Float[np.ndarray, "points"]
    seed: Int[np.ndarray, "points"]  # which of `seeds`, by position
    seeds: tuple[int, ...]
    starts: Float[np.ndarray, "seeds"]  # each seed's mean gold at step 0 (at n = 1), NaN where it was not measured
    num_dropped: int  # rows left out for want of gold or KL

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> "Points":
        """The points of these curves, which are of one method."""
        columns = [(c.sqrt_kl, c.series("gold"), c.position, np.full(c.data.num_rows, c.seed)) for c in curves]
        d, gold, position, owner = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        known = np.isfinite(d) & np.isfinite(gold)
        seeds, seed = np.unique(owner[known], return_inverse=True)
        begins = known & (position == (1 if curves[0].axis == "n" else 0))
        starts = [gold[begins & (owner == own)] for own in seeds]
        means = np.array([values.mean() if len(values) else math.nan for values in starts])
        return cls(d[known], gold[known], seed, tuple(seeds.tolist()), means, int((~known).sum()))

    @property
    def start(self) -> float | None:
        """Mean over seeds of gold at the start; None where no seed has it."""
        return float(np.nanmean(self.starts)) if np.isfinite(self.starts).any() else None

    def errors(self, residuals: Float[np.ndarray, "points"]) -> tuple[float, float | None]:
        """Their root mean square, in gold's units, and the share of gold's variance that is not in them. The rounding of
        gold counts as 0; there is no share, None, where gold does not vary."""
        tolerance = len(self.gold) * (ROUNDING * float(np.abs(self.gold).max())) ** 2
        sums = (float(np.square(each).sum()) for each in (residuals, self.gold - self.gold.mean()))
        squares, spread = (each if each > tolerance else 0.0 for each in sums)
        return math.sqrt(squares / len(self.gold)), 1 - squares / spread if spread > 0 else None


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted curve; intervals are 95% over seeds, None with one seed."""

    form: str
    intercept: bool  # whether R0 is fitted; else it is the mean gold at the start
    coefficients: dict[str, float]
    intervals: dict[str, tuple[float, float] | None]
    num_points: int
    num_dropped: int
    num_seeds: int
    d_range: tuple[float, float]  # smallest and largest d seen
    rmse: float  # over all points, in gold's units
    r_squared: float | None  # None where gold does not vary
    cv_rmse: float | None  # `rmse` on the points of a seed left out of the fit, each in turn; None with one seed
    peak: Peak
    covariance: Float[np.ndarray, "3 3"] | None  # of the coefficients, over seeds, corrected for their small number
    draws: Float[np.ndarray, "draws 3"] | None  # the coefficients of each bootstrap sample

    def curve(self, d: Float[np.ndarray, "d"]) -> Float[np.ndarray, "d"]:
        """Fitted gold."""
        return FORMS[self.form].design(d) @ np.array([self.coefficients[name] for name in COEFFICIENTS])

    def band(self, d: Float[np.ndarray, "d"]) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "d"]] | None:
        """Pointwise 95% interval of mean gold over seeds; None with one seed."""
        if self.covariance is None:
            return None
        design = FORMS[self.form].design(d)
        errors = np.sqrt(np.maximum(np.einsum("di,ij,dj->d", design, self.covariance, design), 0.0))
        half = t_quantile(self.num_seeds - 1) * errors
        return self.curve(d) - half, self.curve(d) + half


def fit_points(points: Points, form: Form, intercept: bool) -> Fit | None:
    """The least-squares fit of the form to all points, each counting once; None where they do not determine it.

    Without `intercept`, R0 is the seeds' mean gold at the start. Intervals are over seeds, since steps of one seed are not
    independent: the seeds are resampled with all their points, the covariance of the coefficients is that over the samples
    times G / (G - 1), and an interval reaches t(G - 1) standard errors to either side, G being the number of seeds.
    Percentiles of so few seeds would be far too narrow.
    """
    solve = seed_solver(points, form, intercept)
    if solve is None:
        return None
    groups, design = len(points.seeds), form.design(points.d)
    coefficients = solve(np.ones((1, groups)))[0]
    draws = covariance = cv_rmse = None
    intervals: dict[str, tuple[float, float] | None] = dict.fromkeys(COEFFICIENTS)
    if groups > 1:
        counts = numpy_generator("seeds of a fit").multinomial(groups, np.full(groups, 1 / groups), DRAWS)
        # Few seeds make few samples that differ.
        distinct, which = np.unique(counts, axis=0, return_inverse=True)
        draws = solve(distinct.astype(float))[which]
        covariance = np.cov(draws, rowvar=False, ddof=0) * groups / (groups - 1)
        halves = t_quantile(groups - 1) * np.sqrt(np.diag(covariance))
        low, high = (coefficients - halves).tolist(), (coefficients + halves).tolist()
        intervals = dict(zip(COEFFICIENTS, zip(low, high, strict=True), strict=True))
        left_out = np.einsum("pi,pi->p", design, solve(1.0 - np.eye(groups))[points.seed])
        cv_rmse, _ = points.errors(points.gold - left_out)
    rmse, r_squared = points.errors(points.gold - design @ coefficients)
    d_range = float(points.d.min()), float(points.d.max())
    peak = Peak(False, f"{NO_PEAK}gold does not vary")
    if r_squared is not None:
        peak = find_peak(form, coefficients, covariance, d_range, groups)
    named = dict(zip(COEFFICIENTS, coefficients.tolist(), strict=True))
    sizes, errors = (len(points.d), points.num_dropped, groups), (rmse, r_squared, cv_rmse)
    return Fit(form.name, intercept, named, intervals, *sizes, d_range, *errors, peak, covariance, draws)


def seed_solver(points: Points, form: Form, intercept: bool) -> Callable[[np.ndarray], np.ndarray] | None:
    """What gives R0, alpha and beta [draws 3] of samples, from how often each holds each seed [draws seeds]; None where
    the points do not determine them.

    The normal equations of a sample are a weighted sum of those of its seeds. They are of orthonormal columns, made of
    the form's by a QR decomposition over all points: squaring the form's own, which are nearly dependent where d spans
    little, would lose half of the digits. Where a sample does not determine the coefficients, the smallest that fit are
    taken. Without `intercept` R0 is the mean of the seeds' starts; a seed without one has the mean of the others.
    """
    design = form.design(points.d)[:, 0 if intercept else 1 :]
    if len(design) < design.shape[1] or (points.start is None and not intercept):
        return None
    scale = np.sqrt(np.square(design).mean(axis=0))
    columns, triangle = np.linalg.qr(design / np.where(scale > 0, scale, 1.0))
    rounding = len(design) * np.finfo(float).eps * np.linalg.norm(triangle, 2)
    if np.linalg.matrix_rank(triangle, tol=rounding) < design.shape[1]:
        return None
    back = np.linalg.inv(triangle) / scale[:, None]
    targets = np.stack([points.gold, np.ones(len(design))], axis=1)
    parts = [points.seed == number for number in range(len(points.seeds))]
    gram = np.stack([columns[own].T @ columns[own] for own in parts])
    moments = np.stack([columns[own].T @ targets[own] for own in parts])
    starts = np.zeros(len(parts))
    if points.start is not None and not intercept:
        starts = np.where(np.isnan(points.starts), points.start, points.starts)

    def solve(counts: Float[np.ndarray, "draws seeds"]) -> Float[np.ndarray, "draws 3"]:
        inverse = np.linalg.pinv(np.einsum("bs,sij->bij", counts, gram), rcond=RELATIVE_RANK, hermitian=True)
        r0 = counts @ starts / counts.sum(axis=1)
        sums = np.einsum("bs,sit->tbi", counts, moments)
        fitted = np.einsum("bij,bj->bi", inverse, sums[0] - r0[:, None] * sums[1]) @ back.T
        return fitted if intercept else np.concatenate([r0[:, None], fitted], axis=1)

    return solve


def find_peak(
    form: Form,
    coefficients: Float[np.ndarray, "3"],
    covariance: Float[np.ndarray, "3 3"] | None,
    d_range: tuple[float, float],
    num_seeds: int,
) -> Peak:
    """The peak of R0 + alpha * first(d) - beta * second(d) within the d seen.

    The confidence set of the slope's zero is Fieller's for a ratio: every x with
    |alpha - beta x| <= t(G - 1) * se(alpha - beta x). The peak counts as supported where that set is an interval within
    the d seen, `d_range`: left of it gold clearly rises, right of it gold clearly falls. `covariance` is of R0, alpha
    and beta, over seeds; None with one seed.
    """
    alpha, beta = coefficients[1:].tolist()
    least, largest = d_range
    first, last = (alpha - beta * form.ratio_at(d) if beta else alpha for d in d_range)
    most, among = f"the largest √KL seen ({largest:.1f})", f"with {num_seeds} seeds"
    if first <= 0 or last >= 0:
        how = f"is still rising at {most}" if first > 0 else f"falls first and rises towards {most}"
        if first <= 0 and last < 0:
            how = f"falls from the smallest √KL seen ({least:.1f}) on"
        return Peak(False, f"{NO_PEAK}gold {how}")
    top, trusted = form.flat_at(alpha / beta), max(least, TRUSTED_FROM * largest)
    gold = float(coefficients @ form.design(np.array([top]))[0])
    found = Peak(False, "", top, top**2, gold)
    interval = None if covariance is None else _fieller(form, coefficients[1:], covariance[1:, 1:], num_seeds)
    if top < trusted:
        below = f"the slope below that, {TRUSTED_FROM:.0%} of the largest seen, is not read"
        reason = f"{NO_PEAK}gold falls from √KL {trusted:.2g} on, and {below}"
    elif covariance is None:
        reason = f"the fitted curve peaks at √KL {top:.2f}, but with one seed it cannot be told whether gold would fall again"
    elif interval is None or interval[1] > largest:
        reason = f"{NO_PEAK}{among} it cannot be told whether gold falls before {most}"
    elif interval[0] < trusted:
        reason = f"{NO_PEAK}gold falls in the end, but {among} the fitted slope is nowhere clearly positive"
    else:
        reason = f"gold peaks at √KL {top:.2f}, 95% interval {interval[0]:.2f} to {interval[1]:.2f}"
        return replace(found, supported=True, reason=reason, d_interval=interval)
    return replace(found, reason=reason)


def _fieller(
    form: Form, ratio: Float[np.ndarray, "2"], covariance: Float[np.ndarray, "2 2"], num_seeds: int
) -> tuple[float, float] | None:
    """The set of d where the slope may be zero; None where it is not one interval, beta being no clear number."""
    alpha, beta = ratio.tolist()
    (alpha_square, product), (_, beta_square) = (t_quantile(num_seeds - 1) ** 2 * covariance).tolist()
    square, cross, constant = beta**2 - beta_square, alpha * beta - product, alpha**2 - alpha_square
    if beta <= 0 or square <= 0:
        return None
    # Never negative but for rounding: the ratio itself is always in the set.
    half = math.sqrt(max(cross**2 - square * constant, 0.0))
    return form.flat_at((cross - half) / square), form.flat_at((cross + half) / square)
