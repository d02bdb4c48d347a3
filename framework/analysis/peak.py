"""Where a fitted curve peaks, and whether the data can support a peak at all."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from framework.analysis.forms import Form

TRUSTED_FROM = 0.05
"""Share of the largest d below which slopes are not read: KL's estimate is mostly noise there, and the RL form's
slope grows without bound."""


@dataclass(frozen=True)
class Peak:
    """The peak of a fitted curve, in sqrt(nats per sequence), nats per sequence and gold's units."""

    supported: bool
    """Whether gold clearly rises somewhere below it and clearly falls somewhere above it, within the d seen."""
    reason: str
    """In words, for a reader."""
    d: float | None
    """The fitted curve's own peak, where it has one within the d seen, supported or not."""
    kl_nats: float | None
    gold: float | None
    d_interval: tuple[float, float] | None
    """95%: every d at which a slope of zero cannot be ruled out (Fieller); None where unsupported."""

    @property
    def kl_interval(self) -> tuple[float, float] | None:
        """The same in nats per sequence."""
        return self.d_interval and (self.d_interval[0] ** 2, self.d_interval[1] ** 2)


def unsupported(reason: str) -> Peak:
    """No peak at all, for this reason."""
    return Peak(False, reason, None, None, None, None)


def find_peak(
    form: Form,
    coefficients: Float[np.ndarray, "3"],
    covariance: Float[np.ndarray, "3 3"] | None,
    quantile: float,
    d_range: tuple[float, float],
    num_seeds: int,
) -> Peak:
    """The peak of R0 + alpha * first(d) - beta * second(d) within the d seen.

    The slope has the sign of alpha - beta * x(d), a straight line in x, so the confidence set of its zero is
    Fieller's for a ratio: every x with |alpha - beta x| <= quantile * se(alpha - beta x). The peak counts as
    supported where that set is an interval within the d seen: left of it gold clearly rises, right of it gold clearly
    falls. It is the set for one form of curve; whether the form is right is not its business.

    Args:
        coefficients: R0, alpha and beta.
        covariance: theirs, over seeds; None with one seed.
        quantile: how many standard errors an interval reaches to either side.
        d_range: smallest and largest d seen.
    """
    alpha, beta = float(coefficients[1]), float(coefficients[2])
    largest = d_range[1]
    rises, falls = (_slope(form, alpha, beta, d) * sign > 0 for d, sign in zip(d_range, (1, -1), strict=True))
    if not (rises and falls):
        return unsupported(_why_flat(rises, falls, *d_range))
    top, smallest = form.flat_at(alpha / beta), max(d_range[0], TRUSTED_FROM * largest)
    gold = float(coefficients @ np.concatenate([[1.0], form.basis(np.array([top]))[0]]))
    if top < smallest:
        reason = (
            f"no peak in this range: gold falls from √KL {smallest:.2g} on, and the slope below that,"
            f" {TRUSTED_FROM:.0%} of the largest seen, is not read"
        )
        return Peak(False, reason, top, top**2, gold, None)
    if covariance is None:
        reason = f"the fitted curve peaks at √KL {top:.2f}, but with one seed it cannot be told whether gold would fall again"
        return Peak(False, reason, top, top**2, gold, None)
    interval = _fieller(form, coefficients[1:], covariance[1:, 1:], quantile)
    if interval is None or interval[1] > largest or interval[0] < smallest:
        is_early = interval is not None and interval[0] < smallest and interval[1] <= largest
        unsure = (
            f"gold falls in the end, but with {num_seeds} seeds the fitted slope is nowhere clearly positive"
            if is_early
            else f"with {num_seeds} seeds it cannot be told whether gold falls before the largest √KL seen ({largest:.1f})"
        )
        reason = f"no peak in this range: {unsure}"
        return Peak(False, reason, top, top**2, gold, None)
    reason = f"gold peaks at √KL {top:.2f}, 95% interval {interval[0]:.2f} to {interval[1]:.2f}"
    return Peak(True, reason, top, top**2, gold, interval)


def _slope(form: Form, alpha: float, beta: float, d: float) -> float:
    """A number with the sign of the slope at d."""
    return alpha - beta * form.ratio_at(d) if beta else alpha


def _why_flat(rises: bool, falls: bool, smallest: float, largest: float) -> str:
    if rises:
        return f"no peak in this range: gold is still rising at the largest √KL seen ({largest:.1f})"
    if falls:
        return f"no peak in this range: gold falls from the smallest √KL seen ({smallest:.1f}) on"
    return f"no peak in this range: gold falls first and rises towards the largest √KL seen ({largest:.1f})"


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
