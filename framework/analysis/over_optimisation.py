"""How much gold is lost past the peak: figures of one curve of gold against d = sqrt(KL)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from framework.analysis.comparison import Estimate
from framework.analysis.frontier import Fit, t_quantile
from framework.analysis.sweep_table import TrialCurve

GRID = 401
"""Points between the smallest and the largest d at which curves are read."""
Interval = tuple[float, float]


@dataclass(frozen=True)
class OverOptimisation:
    """Read off the fitted curve between the smallest and the largest d seen; intervals are 95% over seeds.

    An interval that reaches down to 0 says that a loss is not established. Where the curve never falls the losses
    are 0 and there is no peak.
    """

    index: float
    """The curve's highest gold less its gold at the largest d, in gold's units."""
    index_interval: Interval | None
    area_lost: float
    """Highest gold less gold, integrated over d from the peak to the largest d: gold's units times sqrt(nats)."""
    area_lost_interval: Interval | None
    kl_nats_at_peak: float | None
    """Nats per sequence; None where the curve has no peak within the d seen."""
    kl_nats_at_peak_interval: Interval | None
    """From the confidence set of the peak; None where the data do not support one."""
    gold_at_peak: float | None
    gap_at_end: Estimate
    """Standardised proxy less standardised gold, in standard deviations at the start, where each seed's KL was
    largest: over the last fifth of that run, or at the largest n."""


def over_optimisation(fit: Fit, curves: Sequence[TrialCurve]) -> OverOptimisation:
    """The figures of one fit, and the gap of the curves that it was fitted to."""
    d, peak = np.linspace(*fit.d_range, GRID), fit.peak
    (index,), (area,) = losses(d, fit.curve(d)[None])
    spreads: list[Interval | None] = [None, None]
    if (resampled := fit.resampled(d)) is not None:
        pairs = zip((index, area), losses(d, resampled), strict=True)
        spreads = [_interval(float(value), drawn, fit.num_seeds) for value, drawn in pairs]
    return OverOptimisation(
        index=float(index),
        index_interval=spreads[0],
        area_lost=float(area),
        area_lost_interval=spreads[1],
        kl_nats_at_peak=peak.kl_nats,
        kl_nats_at_peak_interval=peak.kl_interval,
        gold_at_peak=peak.gold,
        gap_at_end=gap_at_end(curves),
    )


def losses(
    d: Float[np.ndarray, "d"], gold: Float[np.ndarray, "draws d"]
) -> tuple[Float[np.ndarray, "draws"], Float[np.ndarray, "draws"]]:
    """Highest gold less the last, and highest gold less gold integrated from the highest on (trapezoids), per curve."""
    top = gold.argmax(axis=1)
    below = gold[np.arange(len(gold)), top][:, None] - gold
    below = np.where(np.arange(len(d)) >= top[:, None], below, 0.0)
    return below[:, -1], np.trapezoid(below, d, axis=1)


def gap_at_end(curves: Sequence[TrialCurve]) -> Estimate:
    """The gap over seeds, each seed's read where its KL was largest."""
    furthest: dict[int, tuple[float, float]] = {}
    for curve in curves:
        gap, d = curve.series("gap")[curve.last_fifth], curve.sqrt_kl[curve.last_fifth]
        known = np.isfinite(gap) & np.isfinite(d)
        if known.any():
            here = float(d[known].mean()), float(gap[known].mean())
            furthest[curve.seed] = max(here, furthest.get(curve.seed, here))
    return Estimate.of([gap for _, gap in furthest.values()])


def _interval(value: float, drawn: Float[np.ndarray, "draws"], num_seeds: int) -> Interval:
    """Student's t with the bootstrap's standard error, as for the coefficients; a loss is never below 0."""
    half = t_quantile(num_seeds) * float(drawn.std()) * math.sqrt(num_seeds / (num_seeds - 1))
    return max(value - half, 0.0), value + half
