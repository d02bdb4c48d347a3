"""Means over seeds and how sure they are: intervals, paired differences, shares, and many comparisons at once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Float

NORMAL_95: Final = 1.959963984540054  # of the standard normal, 95% lie within so many deviations


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval, None with fewer than two seeds: of a figure over seeds, of a difference, of a share."""

    mean: float | None
    interval: tuple[float, float] | None
    num_seeds: int  # values that it is the mean of; of a share of runs, the runs
    p_value: float | None = None  # two-sided, of there being no difference; only where there is one to be tested

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Estimate":
        """The mean of the values that are known, with Student's t interval."""
        known = [value for value in values if value is not None]
        return cls(float(np.mean(known)) if known else None, t_interval(known), len(known))

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies above or below zero, else 0."""
        return 0 if self.interval is None else int(self.interval[0] > 0) - int(self.interval[1] < 0)


def paired_difference(own: Mapping[int, float | None], rival: Mapping[int, float | None]) -> Estimate:
    """`own` less `rival` over the seeds that both have, with the t test of no difference."""
    pairs = [(own[seed], rival.get(seed)) for seed in own]
    values = [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
    plain = Estimate.of(values)
    if plain.mean is None or len(values) < 2:
        return plain
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return replace(plain, p_value=_two_sided(plain.mean, error, len(values) - 1))


def share_over_seeds(shares: Sequence[float | None]) -> Estimate:
    """The mean of a share that each seed has, such as a win rate, with an interval that stays inside [0, 1]: Wilson's, of
    as many draws as would scatter as the seeds do, `p (1 - p) / (s^2 / G)`, and with Student's quantile for the seeds'
    variance. The test is of one half. Where all seeds have 0, or 1, each seed counts as one draw."""
    known = np.array([share for share in shares if share is not None], dtype=float)
    if len(known) < 2:
        return Estimate.of(known.tolist())
    mean, freedom = float(known.mean()), len(known) - 1
    variance = float(known.var(ddof=1)) / len(known)
    if variance == 0:
        count, quantile = (math.inf if 0 < mean < 1 else float(len(known))), NORMAL_95
    else:
        count, quantile = mean * (1 - mean) / variance, t_quantile(freedom)
    p_value = _two_sided(mean - 0.5, math.sqrt(0.25 / count), freedom)
    return Estimate(mean, wilson(mean, count, quantile), len(known), p_value)


def share_of(count: int, total: int) -> Estimate:
    """`count` of `total` independent runs, with Wilson's interval."""
    return Estimate(count / total, wilson(count / total, total), total) if total else Estimate(None, None, 0)


def wilson(share: float, count: float, quantile: float = NORMAL_95) -> tuple[float, float]:
    """95% score interval of a share of `count` independent draws (Wilson, 1927); inside [0, 1] also for 0 and 1."""
    spread = quantile**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = quantile / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def holm(p_values: Sequence[float | None]) -> list[bool]:
    """Which of several comparisons are clear together: at most 5% that any is marked by chance (Holm, 1979). What has no
    p-value is not counted and not marked."""
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    marked = [False] * len(p_values)
    for rank, (p, place) in enumerate(known):
        if p > 0.05 / (len(known) - rank):
            break
        marked[place] = True
    return marked


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95% t interval for the mean of independent values; None for fewer than two."""
    if len(values) < 2:
        return None
    array = np.asarray(values, dtype=float)
    half = t_quantile(len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array))
    return float(array.mean() - half), float(array.mean() + half)


def t_quantile(freedom: int) -> float:
    """Standard errors that a 95% interval reaches to either side, by Student's t."""
    from scipy.special import stdtrit  # here: a configuration is read without SciPy

    return float(stdtrit(freedom, 0.975))


@dataclass(frozen=True)
class Band:
    """A mean over seeds along an axis, with its pointwise 95% t interval (NaN with one seed)."""

    axis: Float[np.ndarray, "points"]
    mean: Float[np.ndarray, "points"]
    low: Float[np.ndarray, "points"]
    high: Float[np.ndarray, "points"]
    num_seeds: int


def band_by_step(steps: Sequence[np.ndarray], curves: Sequence[np.ndarray]) -> Band:
    """The seeds' mean against step, over the steps that every seed measured."""
    axis = np.unique(np.concatenate(list(steps)))
    table = np.full((len(curves), len(axis)), math.nan)
    for row, own, values in zip(table, steps, curves, strict=True):
        row[np.searchsorted(axis, own)] = values
    return _band(axis, table)


def band_by_axis(positions: Sequence[np.ndarray], curves: Sequence[np.ndarray], points: int = 60) -> Band:
    """The seeds' mean against a measured axis such as sqrt(KL), over the range that every seed reached. Each seed's
    values are averaged over all visits to a grid cell and interpolated across empty cells."""
    top = max((np.nanmax(x) for x in positions if np.isfinite(x).any()), default=0.0)
    axis = np.linspace(0.0, max(float(top), 1e-9), points)
    table = np.full((len(curves), points), math.nan)
    for row, x, y in zip(table, positions, curves, strict=True):
        usable = np.isfinite(x) & np.isfinite(y)
        if usable.any():
            cell = np.rint(x[usable] / axis[1]).astype(int).clip(0, points - 1)
            visits, *sums = (np.bincount(cell, w, points) for w in (np.ones(len(cell)), x[usable], y[usable]))
            seen = visits > 0
            # Cells stand at the mean position of their visits: at their centres a line would turn into stairs.
            places, means = (total[seen] / visits[seen] for total in sums)
            row[:] = np.interp(axis, places, means, left=math.nan, right=math.nan)
    return _band(axis, table)


def _band(axis: Float[np.ndarray, "points"], curves: Float[np.ndarray, "seeds points"]) -> Band:
    """The mean over seeds at each point where every seed has a value: a line must not jump where one stopped early."""
    complete = np.isfinite(curves).all(axis=0)
    kept, seeds = curves[:, complete], len(curves)
    mean = kept.mean(axis=0)
    error = kept.std(axis=0, ddof=1) / math.sqrt(seeds) if seeds > 1 else np.full(mean.shape, math.nan)
    half = t_quantile(max(seeds - 1, 1)) * error
    return Band(axis[complete], mean, mean - half, mean + half, len(kept))


def _two_sided(mean: float, error: float, freedom: int) -> float:
    """p-value of a mean of zero by Student's t; seeds that do not differ at all leave no doubt."""
    from scipy.special import stdtr

    if error == 0:
        return 0.0 if mean else 1.0
    return float(2 * stdtr(freedom, -abs(mean) / error))
