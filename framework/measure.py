"""What is read off the curve of a run: its start, peak, end and sqrt(KL), each defined here and nowhere else, for every
table, plot, summary and warning. `rows` are the logged rows of one curve in their order; NaN is what was not measured."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

HELD = 0.1  # share of its budget that the KL at the end of a run may be off and still count as held
WINDOW = 5  # measurements in the centred moving mean, given ten or more
FEWEST = 10  # measurements from which on a peak is cross-fitted
THINNINGS = 100


class Curve(Protocol):
    """The rows of one run, or of one best-of-n curve."""

    @property
    def axis(self) -> str: ...  # what orders the rows: `step`, `epoch`, `stage`, or `n` of best-of-n
    @property
    def position(self) -> Float[np.ndarray, "rows"]: ...  # where on that axis each row is
    @property
    def budget(self) -> float | None: ...  # nats per sequence asked for
    def series(self, name: str) -> Float[np.ndarray, "rows"]: ...  # NaN where it was not measured


@dataclass(frozen=True)
class Peak:
    """The highest point of a noisy curve, without the luck of the row that happened to be highest."""

    value: float
    error: float | None  # its standard error; None where the errors it is made of are not known
    row: int


@dataclass(frozen=True)
class Outcome:
    """How one curve began, peaked and ended. None is what was not measured; gold is in its scorer's units."""

    steps: int
    proxy_start: float | None  # reference standard deviations
    proxy_end: float | None
    gold_start: float | None
    gold_start_se: float | None
    gold_peak: float | None
    gold_peak_se: float | None
    gold_peak_at: float | None  # a step, or an n
    gold_peak_is_inside: bool
    """Whether it lies before the rows that stand for the end: their mean is below the peak of gold that still rises too."""
    gold_end: float | None
    gold_end_se: float | None
    kl_nats_at_gold_peak: float | None  # nats per sequence to the initial policy, smoothed
    kl_nats_end: float | None
    gap_end: float | None  # standardised proxy less standardised gold, in standard deviations at the start
    kl_coef_end: float | None  # reward units per nat
    ended_start: float | None  # share of responses that end by themselves
    ended_end: float | None
    disagreement_start: float | None  # deviation over heads, in reference standard deviations; None with one head
    disagreement_end: float | None
    head_correlation_start: float | None
    head_correlation_end: float | None
    budget: float | None  # nats per sequence asked for
    budget_ratio: float | None  # KL at the end over the budget
    budget_held: bool | None  # whether the two differ by at most `HELD` of the budget

    @property
    def gained(self) -> bool:
        """Whether the peak stands clear of the start: more than two standard errors of the difference."""
        return _is_above(self.gold_peak, self.gold_peak_se, self.gold_start, self.gold_start_se)

    @property
    def turned_over(self) -> bool:
        """Whether gold rose, peaked before the end and fell, each way by more than two standard errors of the difference."""
        fell = _is_above(self.gold_peak, self.gold_peak_se, self.gold_end, self.gold_end_se)
        return self.gained and self.gold_peak_is_inside and fell

    @property
    def share_lost(self) -> float | None:
        """(peak - end) / (peak - start): 0 kept the gain, 1 is back at the start; None without a gain."""
        if not self.gained or self.gold_end is None:
            return None
        assert self.gold_peak is not None and self.gold_start is not None
        return max(0.0, (self.gold_peak - self.gold_end) / (self.gold_peak - self.gold_start))

    def to_json(self) -> dict[str, Any]:
        """Plain values, what follows from them too."""
        return asdict(self) | {name: getattr(self, name) for name in ("gained", "turned_over", "share_lost")}


def outcome_of(curve: Curve) -> Outcome:
    """The outcome of a curve; the same wherever its rows come from."""
    starts = ("proxy", "gold", "ended", "disagreement", "head_correlation")
    series = {name: curve.series(name) for name in (*starts, "kl_nats", "gap", "kl_coef")}
    if not np.nan_to_num(series["disagreement"]).any():
        # The disagreement of a single head is 0 throughout: that is no measurement.
        series["disagreement"] = np.full(len(series["gold"]), math.nan)
    gold, errors, kl = series["gold"], curve.series("gold_se"), series["kl_nats"]
    last = _end_rows(gold, curve.axis)
    peak = highest_of(gold, errors) if curve.axis == "n" else peak_of(gold, errors)
    smooth_kl, kl_end = kl if curve.axis == "n" else moving_mean(kl), end_of(kl, curve.axis)
    ratio = kl_end / curve.budget if kl_end is not None and curve.budget else None
    return Outcome(
        **{f"{name}_start": start_of(series[name]) for name in starts},
        **{f"{name}_end": end_of(values, curve.axis) for name, values in series.items()},
        steps=len(gold),
        gold_start_se=_error_of_mean(errors[np.isfinite(gold)][:1]),
        gold_peak=peak.value if peak else None,
        gold_peak_se=peak.error if peak else None,
        gold_peak_at=_finite(curve.position[peak.row]) if peak else None,
        gold_peak_is_inside=bool(peak is not None and len(last) and peak.row < last[0]),
        gold_end_se=_error_of_mean(errors[last]),
        kl_nats_at_gold_peak=_finite(smooth_kl[peak.row]) if peak else None,
        budget=curve.budget,
        budget_ratio=ratio,
        budget_held=None if ratio is None else abs(ratio - 1) <= HELD,
    )


def sqrt_kl(kl_nats: Float[np.ndarray, "rows"]) -> Float[np.ndarray, "rows"]:
    """In sqrt(nats per sequence), each row by itself: gold belongs to the KL of its own step, and while KL climbs a moving
    mean is another step's. k1 is unbiased but not bounded below: an estimate under zero counts as zero."""
    return np.sqrt(np.maximum(kl_nats, 0.0))


def start_of(values: Float[np.ndarray, "rows"]) -> float | None:
    """The first measured value: step 0 is the initial policy itself."""
    return next(iter(values[np.isfinite(values)].tolist()), None)


def end_of(values: Float[np.ndarray, "rows"], axis: str = "step") -> float | None:
    """The mean over the last fifth of the rows, rounded up; of best-of-n (axis `n`) the value at the largest n. Where
    nothing was measured there, the last value of the second half: before, the policy was on its way."""
    rows = _end_rows(values, axis)
    return float(values[rows].mean()) if len(rows) else None


def peak_of(values: Float[np.ndarray, "rows"], errors: Float[np.ndarray, "rows"]) -> Peak | None:
    """The peak of a noisy curve; None where nothing was measured.

    The highest of many noisy values is high by luck too, and so is the highest of their moving mean. So measurements
    are dealt in turn to two halves (cross-fitting). Each half, smoothed over `WINDOW` of its own, says where the peak is;
    the other half's measurements nearest to that place say how high. The two answers are averaged. The row is where the
    moving mean of all is highest. What is left of the bias was simulated: docs/method.md, section 11. Fewer than ten
    measurements are too far apart for halves: see `_thinned_peak`. `errors` are the values' standard errors.
    """
    measured = np.flatnonzero(np.isfinite(values))
    if len(measured) < FEWEST:
        return _thinned_peak(values, errors)
    beside = min(max(len(measured) // 20, 1), 2)
    halves = measured[0::2], measured[1::2]
    read = []
    for own, other in (halves, halves[::-1]):
        place = own[np.argmax(_centred_mean(values[own], WINDOW))]
        at = int(np.searchsorted(other, place))
        read.append(other[max(at - beside, 0) : at + beside])
    spreads = [_error_of_mean(errors[rows]) for rows in read]
    return Peak(
        value=float(np.mean([values[rows].mean() for rows in read])),
        error=None if None in spreads else math.hypot(*filter(None, spreads)) / 2,
        row=int(np.nanargmax(moving_mean(values))),
    )


def _thinned_peak(values: Float[np.ndarray, "rows"], errors: Float[np.ndarray, "rows"]) -> Peak | None:
    """The peak of a few measurements: with noise z of their own error added they say where it is, with the same z
    taken away how high. The two are independent (Rasines and Young, 2023); the mean is over many z, both signs of
    each. Where an error is not known it is the highest value as it is."""
    top, measured = highest_of(values, errors), np.flatnonzero(np.isfinite(values))
    if top is None or not np.isfinite(errors[measured]).all():
        return top
    drawn = np.random.default_rng(0).standard_normal((THINNINGS, len(measured))) * errors[measured]
    drawn = np.concatenate([drawn, -drawn])
    chosen = (values[measured] + drawn).argmax(axis=1)
    read = values[measured][chosen] - drawn[np.arange(len(drawn)), chosen]
    error = math.sqrt(np.square(errors[measured][chosen]).mean())
    return Peak(float(read.mean()), error, top.row)


def highest_of(values: Float[np.ndarray, "rows"], errors: Float[np.ndarray, "rows"]) -> Peak | None:
    """The highest value as it is, of equal ones the first: for best-of-n, whose values share one pool's noise."""
    if not np.isfinite(values).any():
        return None
    row = int(np.nanargmax(values))
    return Peak(float(values[row]), _finite(errors[row]), row)


def moving_mean(values: Float[np.ndarray, "rows"]) -> Float[np.ndarray, "rows"]:
    """Centred mean over `WINDOW` measured values, truncated at the ends; NaN where nothing was measured. The window is 3
    below ten measurements, and 1 below six: five over three steps would flatten a short run."""
    measured = np.flatnonzero(np.isfinite(values))
    count = len(measured)
    window = WINDOW if count >= 2 * WINDOW else 3 if count >= 6 else 1
    smooth = np.full(len(values), math.nan)
    smooth[measured] = _centred_mean(values[measured], window)
    return smooth


def _centred_mean(values: Float[np.ndarray, "measured"], window: int) -> Float[np.ndarray, "measured"]:
    """Over an odd number of values, truncated at the ends."""
    half, count = window // 2, len(values)
    padded, inside = np.pad(values, half), np.pad(np.ones(count), half)
    # Added in order, so that a sum is that of the window's own values to the last bit.
    windows = [slice(shift, shift + count) for shift in range(2 * half + 1)]
    return np.asarray(sum(padded[w] for w in windows) / sum(inside[w] for w in windows))


def _end_rows(values: Float[np.ndarray, "rows"], axis: str) -> Int[np.ndarray, "some"]:
    """The measured rows that stand for the end."""
    measured, count = np.flatnonzero(np.isfinite(values)), len(values)
    last = measured[measured >= count - (1 if axis == "n" else math.ceil(count / 5))]
    return last if len(last) else measured[measured >= count // 2][-1:]


def _error_of_mean(errors: Float[np.ndarray, "some"]) -> float | None:
    """Of a mean of independent values; None where one of their errors is not known."""
    is_known = len(errors) > 0 and np.isfinite(errors).all()
    return float(np.sqrt(np.square(errors).sum()) / len(errors)) if is_known else None


def _is_above(high: float | None, high_se: float | None, low: float | None, low_se: float | None) -> bool:
    if high is None or low is None or high_se is None or low_se is None:
        return False
    return high - low > 2 * math.hypot(high_se, low_se)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
