"""The forms that gold is fitted with as a function of d = sqrt(KL) in sqrt(nats per sequence), and where a fit peaks.

Each is R0 + alpha * first(d) - beta * second(d): linear in its coefficients. Its slope has the sign of
alpha - beta * x with a rising x(d), which is all that is needed to find the peak and how sure of it one may be.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

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


# The first two are those of arXiv 2210.10760, and the parabola in KL itself is what they are held against.
_FORMS = (
    Form(
        "bon", "d (α − β d)", lambda d: np.stack([d, -(d**2)], axis=1),
        lambda d: 2 * d, lambda ratio: max(ratio, 0.0) / 2,
    ),
    Form(
        "rl", "d (α − β log d)", lambda d: np.stack([d, -(d * np.log(np.where(d > 0, d, 1.0)))], axis=1),
        lambda d: 1 + math.log(d) if d > 0 else -math.inf, lambda ratio: math.exp(ratio - 1) if ratio < 700 else math.inf,
    ),
    Form(
        "quadratic", "α d² − β d⁴", lambda d: np.stack([d**2, -(d**4)], axis=1),
        lambda d: 2 * d**2, lambda ratio: math.sqrt(max(ratio, 0.0) / 2),
    ),
)  # fmt: skip
FORMS: dict[str, Form] = {form.name: form for form in _FORMS}


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


def find_peak(
    form: Form,
    coefficients: Float[np.ndarray, "3"],
    covariance: Float[np.ndarray, "3 3"] | None,
    quantile: float,
    d_range: tuple[float, float],
    num_seeds: int,
) -> Peak:
    """The peak of R0 + alpha * first(d) - beta * second(d) within the d seen.

    The confidence set of the slope's zero is Fieller's for a ratio: every x with
    |alpha - beta x| <= quantile * se(alpha - beta x). The peak counts as supported where that set is an interval within
    the d seen, `d_range`: left of it gold clearly rises, right of it gold clearly falls. `covariance` is of R0, alpha
    and beta, over seeds; None with one seed.
    """
    alpha, beta = coefficients[1:].tolist()
    least, largest = d_range
    first, last = (alpha - beta * form.ratio_at(d) if beta else alpha for d in d_range)
    if first <= 0 or last >= 0:
        how = f"falls first and rises towards the largest √KL seen ({largest:.1f})"
        if first > 0:
            how = f"is still rising at the largest √KL seen ({largest:.1f})"
        elif last < 0:
            how = f"falls from the smallest √KL seen ({least:.1f}) on"
        return Peak(False, f"{NO_PEAK}gold {how}")
    top, trusted = form.flat_at(alpha / beta), max(least, TRUSTED_FROM * largest)
    gold = float(coefficients @ np.concatenate([[1.0], form.basis(np.array([top]))[0]]))
    found = Peak(False, "", top, top**2, gold)
    interval = None if covariance is None else _fieller(form, coefficients[1:], covariance[1:, 1:], quantile)
    if top < trusted:
        reason = (
            f"{NO_PEAK}gold falls from √KL {trusted:.2g} on, and the slope below that,"
            f" {TRUSTED_FROM:.0%} of the largest seen, is not read"
        )
    elif covariance is None:
        reason = f"the fitted curve peaks at √KL {top:.2f}, but with one seed it cannot be told whether gold would fall again"
    elif interval is None or interval[1] > largest:
        reason = f"{NO_PEAK}with {num_seeds} seeds it cannot be told whether gold falls before the largest √KL seen ({largest:.1f})"
    elif interval[0] < trusted:
        reason = (
            f"{NO_PEAK}gold falls in the end, but with {num_seeds} seeds the fitted slope is nowhere clearly positive"
        )
    else:
        reason = f"gold peaks at √KL {top:.2f}, 95% interval {interval[0]:.2f} to {interval[1]:.2f}"
        return replace(found, supported=True, reason=reason, d_interval=interval)
    return replace(found, reason=reason)


def _fieller(
    form: Form, ratio: Float[np.ndarray, "2"], covariance: Float[np.ndarray, "2 2"], quantile: float
) -> tuple[float, float] | None:
    """The set of d where the slope may be zero; None where it is not one interval, beta being no clear number."""
    alpha, beta = ratio.tolist()
    (alpha_square, product), (_, beta_square) = (quantile**2 * covariance).tolist()
    square, cross, constant = beta**2 - beta_square, alpha * beta - product, alpha**2 - alpha_square
    if beta <= 0 or square <= 0:
        return None
    # Never negative but for rounding: the ratio itself is always in the set.
    half = math.sqrt(max(cross**2 - square * constant, 0.0))
    return form.flat_at((cross - half) / square), form.flat_at((cross + half) / square)
