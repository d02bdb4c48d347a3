"""Gold as a function of d = sqrt(KL): the points of all seeds, and curves fitted to them with intervals over seeds.

Sizes here: `points` over all seeds, `seeds`, `draws` bootstrap samples of the seeds. Coefficients are in the order of
`COEFFICIENTS`: gold's units, and those over powers of sqrt(nats per sequence).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

from framework.analysis.forms import FORMS, Form
from framework.analysis.peak import Peak, find_peak, unsupported
from framework.analysis.sweep_table import TrialCurve
from framework.seeding import numpy_generator

DRAWS = 2000
"""Bootstrap samples of the seeds."""
COEFFICIENTS = ("r0", "alpha", "beta")
RELATIVE_RANK = 1e-10
"""Of a sample's normal equations: directions this much weaker than the strongest are left at zero."""
ROUNDING = 1e-12
"""Of the largest gold in size: differences below this are those of floating point."""


@dataclass(frozen=True, eq=False)
class Points:
    """What a curve is fitted to: every step (every n) of every trial and seed that has gold and KL."""

    d: Float[np.ndarray, "points"]
    """sqrt(KL) as estimated at that step; smoothed, early steps would lie too far right of their gold."""
    gold: Float[np.ndarray, "points"]
    """As measured, not smoothed."""
    seed: Int[np.ndarray, "points"]
    """Which of `seeds`, by position."""
    seeds: tuple[int, ...]
    """Those that have a point."""
    starts: Float[np.ndarray, "seeds"]
    """Each seed's mean gold at step 0 (at n = 1), NaN where it was not measured."""
    num_dropped: int
    """Rows left out for want of gold or KL."""

    @classmethod
    def of(cls, curves: Sequence[TrialCurve]) -> "Points":
        """The points of these curves, which are of one optimiser."""
        d, gold, position = (
            np.concatenate([np.zeros(0), *columns])
            for columns in (
                [curve.sqrt_kl for curve in curves],
                [curve.series("gold") for curve in curves],
                [curve.position for curve in curves],
            )
        )
        owner = np.repeat(
            np.array([curve.seed for curve in curves], dtype=np.int64),
            np.array([len(curve.sqrt_kl) for curve in curves], dtype=np.int64),
        )
        known = np.isfinite(d) & np.isfinite(gold)
        seeds, seed = np.unique(owner[known], return_inverse=True)
        begins = known & (position == (1 if curves and curves[0].optimiser == "best_of_n" else 0))
        starts = [gold[begins & (owner == own)] for own in seeds]
        return cls(
            d[known],
            gold[known],
            seed,
            tuple(seeds.tolist()),
            np.array([values.mean() if len(values) else math.nan for values in starts]),
            int((~known).sum()),
        )

    @property
    def start(self) -> float | None:
        """Mean over seeds of gold at the start; None where no seed has it."""
        return float(np.nanmean(self.starts)) if np.isfinite(self.starts).any() else None

    @cached_property
    def spread(self) -> float:
        """Sum of squares of gold about its mean; 0 where gold does not vary."""
        return self._beyond_rounding(float(np.square(self.gold - self.gold.mean()).sum()))

    def rmse(self, squares: float) -> float:
        """Root mean square, in gold's units, of deviations whose squares over all points sum to this."""
        return math.sqrt(self._beyond_rounding(squares) / len(self.gold))

    def r_squared(self, squares: float) -> float | None:
        """Share of gold's variance that is not in such deviations; None where gold does not vary."""
        return 1 - self._beyond_rounding(squares) / self.spread if self.spread > 0 else None

    def _beyond_rounding(self, squares: float) -> float:
        """A sum of squares over the points, in gold's units squared; 0 where it is but the rounding of gold."""
        tolerance = len(self.gold) * (ROUNDING * float(np.abs(self.gold).max())) ** 2
        return squares if squares > tolerance else 0.0


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted curve; intervals are 95% over seeds, None with one seed."""

    form: str
    intercept: bool
    """Whether R0 is fitted; else it is the mean gold at the start."""
    coefficients: dict[str, float]
    intervals: dict[str, tuple[float, float] | None]
    num_points: int
    num_dropped: int
    num_seeds: int
    d_range: tuple[float, float]
    """Smallest and largest d seen, in sqrt(nats per sequence)."""
    rmse: float
    """Root mean squared residual over all points, in gold's units."""
    r_squared: float | None
    """Share of gold's variance over all points that the curve explains; None where gold does not vary."""
    cv_rmse: float | None
    """Root mean squared error on the points of a seed left out of the fit, each in turn; None with one seed."""
    peak: Peak
    covariance: Float[np.ndarray, "3 3"] | None
    """Of the coefficients, over seeds, corrected for their small number; None with one seed."""
    draws: Float[np.ndarray, "draws 3"] | None
    """The coefficients of each bootstrap sample; None with one seed."""

    def curve(self, d: Float[np.ndarray, "d"]) -> Float[np.ndarray, "d"]:
        """Fitted gold."""
        return _design(FORMS[self.form], d) @ self._vector

    def band(self, d: Float[np.ndarray, "d"]) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "d"]] | None:
        """Pointwise 95% interval of mean gold over seeds; None with one seed."""
        if self.covariance is None:
            return None
        design = _design(FORMS[self.form], d)
        errors = np.sqrt(np.maximum(np.einsum("di,ij,dj->d", design, self.covariance, design), 0.0))
        half = t_quantile(self.num_seeds) * errors
        return self.curve(d) - half, self.curve(d) + half

    def resampled(self, d: Float[np.ndarray, "d"]) -> Float[np.ndarray, "draws d"] | None:
        """Fitted gold of each bootstrap sample; None with one seed."""
        return None if self.draws is None else self.draws @ _design(FORMS[self.form], d).T

    @cached_property
    def _vector(self) -> Float[np.ndarray, "3"]:
        return np.array([self.coefficients[name] for name in COEFFICIENTS])


def t_quantile(num_seeds: int) -> float:
    """Standard errors that a 95% interval over this many seeds reaches to either side: Student's t."""
    return float(stdtrit(num_seeds - 1, 0.975))


def fit_points(points: Points, form: Form, intercept: bool) -> Fit | None:
    """The least-squares fit of the form to all points, each counting once; None where they do not determine it.

    The form is linear in R0, alpha and beta, so the optimum is solved for exactly: an iterative non-linear
    least-squares search could only come near it. Without `intercept`, R0 is the seeds' mean gold at the start.

    Intervals are over seeds, since steps of one seed are not independent: the seeds are resampled with all
    their points, the covariance of the coefficients is that over the samples times G / (G - 1), and an interval
    reaches t(G - 1) standard errors to either side, G being the number of seeds. Percentiles of so few seeds would be
    far too narrow; where the seeds' points lie alike, this is Student's interval of the mean over seeds.
    """
    sums = SeedSums.of(points, form, intercept)
    if sums is None:
        return None
    groups = len(points.seeds)
    coefficients = sums.solve(np.ones((1, groups)))[0]
    draws = covariance = cv_rmse = None
    if groups > 1:
        counts = numpy_generator("seeds of a fit").multinomial(groups, np.full(groups, 1 / groups), DRAWS)
        # Few seeds make few samples that differ.
        distinct, which = np.unique(counts, axis=0, return_inverse=True)
        draws = sums.solve(distinct.astype(float))[which]
        covariance = np.cov(draws, rowvar=False, ddof=0) * groups / (groups - 1)
        cv_rmse = _left_out_rmse(points, form, sums.solve(1.0 - np.eye(groups)))
    error = float(np.square(points.gold - _design(form, points.d) @ coefficients).sum())
    d_range = float(points.d.min()), float(points.d.max())
    quantile = t_quantile(groups) if groups > 1 else math.nan
    return Fit(
        form=form.name,
        intercept=intercept,
        coefficients=dict(zip(COEFFICIENTS, coefficients.tolist(), strict=True)),
        intervals=_intervals(coefficients, covariance, quantile),
        num_points=len(points.d),
        num_dropped=points.num_dropped,
        num_seeds=groups,
        d_range=d_range,
        rmse=points.rmse(error),
        r_squared=points.r_squared(error),
        cv_rmse=cv_rmse,
        peak=find_peak(form, coefficients, covariance, quantile, d_range, groups)
        if points.spread > 0
        else unsupported("no peak in this range: gold does not vary"),
        covariance=covariance,
        draws=draws,
    )


@dataclass(frozen=True, eq=False)
class SeedSums:
    """The normal equations of each seed by itself: any sample of the seeds is a weighted sum of them.

    They are those of orthonormal columns, made of the form's by a QR decomposition over all points: squaring the
    form's own, which are nearly dependent where d spans little, would lose half of the digits.
    Of the three coefficients, `free` are fitted: all of them, or alpha and beta.
    """

    gram: Float[np.ndarray, "seeds free free"]
    moments: Float[np.ndarray, "seeds free"]
    """Columns times gold."""
    ones: Float[np.ndarray, "seeds free"]
    """Sums of the columns."""
    starts: Float[np.ndarray, "seeds"]
    """Gold at each seed's start; of a seed without it, the mean of the others."""
    back: Float[np.ndarray, "free free"]
    """From coefficients of the orthonormal columns to those of the form."""

    @classmethod
    def of(cls, points: Points, form: Form, intercept: bool) -> "SeedSums | None":
        """The sums of these points; None where they do not determine the coefficients, or the start is not known."""
        design = _design(form, points.d)[:, 0 if intercept else 1 :]
        free = design.shape[1]
        if len(design) < free or (points.start is None and not intercept):
            return None
        scale = np.sqrt(np.square(design).mean(axis=0))
        columns, triangle = np.linalg.qr(design / np.where(scale > 0, scale, 1.0))
        rounding = len(design) * np.finfo(float).eps * np.linalg.norm(triangle, 2)
        if np.linalg.matrix_rank(triangle, tol=rounding) < free:
            return None
        parts = [points.seed == number for number in range(len(points.seeds))]
        start = math.nan if points.start is None else points.start
        return cls(
            np.stack([columns[own].T @ columns[own] for own in parts]),
            np.stack([columns[own].T @ points.gold[own] for own in parts]),
            np.stack([columns[own].sum(axis=0) for own in parts]),
            np.where(np.isfinite(points.starts), points.starts, start),
            np.linalg.inv(triangle) / scale[:, None],
        )

    def solve(self, counts: Float[np.ndarray, "draws seeds"]) -> Float[np.ndarray, "draws 3"]:
        """R0, alpha and beta of each sample, given how often it holds each seed.

        Where a sample does not determine them, the smallest that fit are taken.
        """
        gram, moments = np.einsum("bs,sij->bij", counts, self.gram), counts @ self.moments
        if len(self.back) == len(COEFFICIENTS):
            return self._smallest(gram, moments)
        r0 = counts @ self.starts / counts.sum(axis=1)
        rest = self._smallest(gram, moments - r0[:, None] * (counts @ self.ones))
        return np.concatenate([r0[:, None], rest], axis=1)

    def _smallest(self, gram: np.ndarray, moments: np.ndarray) -> np.ndarray:
        inverse = np.linalg.pinv(gram, rcond=RELATIVE_RANK, hermitian=True)
        return np.asarray((inverse @ moments[:, :, None])[..., 0] @ self.back.T)


def _left_out_rmse(points: Points, form: Form, without: Float[np.ndarray, "seeds 3"]) -> float:
    """Error on each point of the curve that its seed had no part in."""
    fitted = np.einsum("pi,pi->p", _design(form, points.d), without[points.seed])
    return points.rmse(float(np.square(points.gold - fitted).sum()))


def _intervals(
    coefficients: Float[np.ndarray, "3"], covariance: Float[np.ndarray, "3 3"] | None, quantile: float
) -> dict[str, tuple[float, float] | None]:
    if covariance is None:
        return dict.fromkeys(COEFFICIENTS)
    halves = quantile * np.sqrt(np.diag(covariance))
    bounds = zip((coefficients - halves).tolist(), (coefficients + halves).tolist(), strict=True)
    return dict(zip(COEFFICIENTS, bounds, strict=True))


def _design(form: Form, d: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points 3"]:
    return np.concatenate([np.ones((len(d), 1)), form.basis(d)], axis=1)
