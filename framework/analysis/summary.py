"""Numbers of a run and of a study, as their `summary.json` holds them.

Start, peak and final values are read off the centred moving mean of `curves.moving_mean` (5 measured
steps, fewer where fewer than ten were measured, truncated at the ends), so that the peak of a noisy curve
is not just its luckiest batch. A number that was never measured is None, written as null; NaN is never
written.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from framework.analysis.curves import Run, load_run, moving_mean, moving_standard_error, t_interval

INTERVAL_KEYS = (
    "steps",
    "seconds",
    "kl_nats_final",
    "proxy_start",
    "proxy_final",
    "gold_start",
    "gold_peak",
    "gold_peak_step",
    "kl_nats_at_gold_peak",
    "gold_final",
    "tokens_generated",
    "tokens_per_second",
)
"""The keys of a summary that are one number, in file order; `seed` is not averaged."""


@dataclass(frozen=True)
class GoldArc:
    """How gold rose and fell in one run, in the gold scorer's own units, with standard errors."""

    start: float
    start_se: float
    peak: float
    peak_se: float
    peak_step: int
    kl_nats_at_peak: float | None
    final: float
    final_se: float

    @property
    def gained(self) -> bool:
        """Whether the peak stands clear of the start: more than two standard errors of the difference."""
        return self.peak - self.start > 2 * math.hypot(self.peak_se, self.start_se)

    @property
    def turned_over(self) -> bool:
        """Whether gold rose and then fell, each by more than two standard errors of the difference."""
        return self.gained and self.peak - self.final > 2 * math.hypot(self.peak_se, self.final_se)

    @property
    def share_lost(self) -> float | None:
        """(peak - final) / (peak - start): 0 kept the gain, 1 is back at the start; None without a gain."""
        return (self.peak - self.final) / (self.peak - self.start) if self.gained else None


def gold_arc(run: Run) -> GoldArc | None:
    """Start, peak and end of the run's smoothed gold; None when gold was never measured."""
    return arc_of(run.steps, run.series("gold"), run.series("gold_se"), run.series("kl_nats"))


def arc_of(
    steps: Float[np.ndarray, "steps"],
    gold: Float[np.ndarray, "steps"],
    gold_se: Float[np.ndarray, "steps"],
    kl_nats: Float[np.ndarray, "steps"],
) -> GoldArc | None:
    """`gold_arc` of a run's metrics, NaN where one was not measured. Of equal peaks the earliest counts."""
    measured = np.flatnonzero(np.isfinite(gold))
    if not len(measured):
        return None
    smooth = moving_mean(gold)
    errors = moving_standard_error(gold_se, gold)
    first, last, peak = measured[0], measured[-1], int(np.nanargmax(smooth))
    return GoldArc(
        start=float(smooth[first]),
        start_se=float(errors[first]),
        peak=float(smooth[peak]),
        peak_se=float(errors[peak]),
        peak_step=int(steps[peak]),
        kl_nats_at_peak=_finite(moving_mean(kl_nats)[peak]),
        final=float(smooth[last]),
        final_se=float(errors[last]),
    )


def summarise_run(folder: Path) -> dict[str, Any]:
    """The summary of the run in `folder`; see `summarise` for its keys."""
    return summarise(load_run(folder))


def summarise(run: Run) -> dict[str, Any]:
    """What `summary.json` of a run holds.

    `steps` logged steps; `seconds` their wall-clock; `kl_nats_*` nats per sequence to the initial policy
    (k1); `proxy_*` reference standard deviations; `gold_*` the gold scorer's units; `tokens_*` generated
    response tokens; `warnings` the step at which each signal's alarm was raised, as the run logged it;
    `stage_seconds` summed over steps; `peak_rss_mb` the largest seen, per role.
    """
    arc = gold_arc(run)
    seconds = _total(run.timings, "seconds")
    tokens = _total(run.timings, "tokens")
    return {
        "steps": len(run.metrics),
        "seconds": seconds,
        "seed": run.config.get("seed"),
        "kl_nats_final": _end(run, "kl_nats"),
        "proxy_start": _start(run, "proxy"),
        "proxy_final": _end(run, "proxy"),
        "gold_start": arc and arc.start,
        "gold_peak": arc and arc.peak,
        "gold_peak_step": arc and arc.peak_step,
        "kl_nats_at_gold_peak": arc and arc.kl_nats_at_peak,
        "gold_final": arc and arc.final,
        "tokens_generated": None if tokens is None else int(tokens),
        "tokens_per_second": tokens / seconds if tokens is not None and seconds else None,
        "warnings": dict(run.metrics[-1].get("warnings") or {}),
        "stage_seconds": _per_name(run.timings, "stage_seconds", sum),
        "peak_rss_mb": _per_name(run.timings, "peak_rss_mb", max),
    }


def summarise_study(runs: Mapping[str, Mapping[int, Path]]) -> dict[str, Any]:
    """The summary of a study from its run folders, `{variant: {seed: folder}}`.

    Each variant has a run's keys averaged over the seeds that have them, `seeds`, and `intervals`: for
    each single number its 95% t interval over seeds as [low, high], null when fewer than two seeds have
    it. `seed` is the seed when there is one, else null.
    """
    variants = {
        name: {seed: load_run(folder) for seed, folder in seeds.items()} for name, seeds in runs.items()
    }
    return summarise_runs(variants)


def summarise_runs(runs: Mapping[str, Mapping[int, Run]]) -> dict[str, Any]:
    """`summarise_study` for runs already read."""
    return {"variants": {name: _average(seeds) for name, seeds in runs.items()}}


@dataclass(frozen=True)
class Difference:
    """One variant minus another, paired by seed: mean and 95% t interval over the pairs."""

    mean: float
    interval: tuple[float, float] | None
    num_pairs: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def paired_difference(first: Mapping[int, Run], second: Mapping[int, Run], key: str) -> Difference | None:
    """`first` minus `second` in one summary number over the seeds both have; None when there is no pair."""
    pairs = [(summarise(first[seed])[key], summarise(second[seed])[key]) for seed in first if seed in second]
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    if not differences:
        return None
    return Difference(float(np.mean(differences)), t_interval(differences), len(differences))


def _average(seeds: Mapping[int, Run]) -> dict[str, Any]:
    summaries = [summarise(run) for run in seeds.values()]
    averaged: dict[str, Any] = {}
    for key in summaries[0]:
        column = [summary[key] for summary in summaries]
        if key in INTERVAL_KEYS:
            averaged[key] = _mean(column)
        elif key != "seed":
            names = dict.fromkeys(name for entry in column for name in entry)
            averaged[key] = {name: _mean([entry.get(name) for entry in column]) for name in names}
        else:
            averaged[key] = column[0] if len(column) == 1 else None
    intervals = {key: t_interval(_known([s[key] for s in summaries])) for key in INTERVAL_KEYS}
    averaged["intervals"] = {key: None if pair is None else list(pair) for key, pair in intervals.items()}
    averaged["seeds"] = list(seeds)
    return averaged


def _known(values: Sequence[float | int | None]) -> list[float]:
    return [float(value) for value in values if value is not None]


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = _known(values)
    return float(np.mean(known)) if known else None


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _start(run: Run, name: str) -> float | None:
    smooth = run.smoothed(name)
    measured = smooth[np.isfinite(smooth)]
    return float(measured[0]) if len(measured) else None


def _end(run: Run, name: str) -> float | None:
    smooth = run.smoothed(name)
    measured = smooth[np.isfinite(smooth)]
    return float(measured[-1]) if len(measured) else None


def _total(records: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = _known([record.get(name) for record in records])
    return float(sum(values)) if values else None


def _per_name(records: Sequence[Mapping[str, Any]], field: str, combine: Any) -> dict[str, float]:
    gathered: dict[str, list[float]] = {}
    for record in records:
        for name, value in (record.get(field) or {}).items():
            if value is not None and math.isfinite(value):
                gathered.setdefault(name, []).append(float(value))
    return {name: float(combine(values)) for name, values in gathered.items()}
