"""The rows that charts draw: dots of single steps, thinned to what a page can hold, and means over seeds of all rows."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from framework.analysis.columns import BEST_OF_N
from framework.analysis.comparison import RUNS
from framework.analysis.experiment import Experiment
from framework.analysis.over_seeds import Band, Estimate, band_by_axis, band_by_step
from framework.analysis.run_folder import rollout_steps
from framework.analysis.table import Curve
from framework.measure import moving_mean
from framework.report.charts import KL_TITLE, Rows, Spec, axis, plain

MOST_DOTS = 800  # over all runs: each has a few samples to open
FEWEST_DOTS = 8  # of a run, however many runs there are
MOST_VERTICES = 60  # of a line
METRICS = ("kl_nats", "proxy", "gold", "gap", "kl_coef", "disagreement", "response_tokens", "ended")  # of a dot
METHODS = {BEST_OF_N: "best-of-n", RUNS: "training"}  # what is called otherwise than it is named


def method_title(method: str) -> str:
    """The method as a reader calls it."""
    return METHODS.get(method, method)


def other_golds(curve: Curve) -> list[str]:
    """The columns of gold signals beside `gold`."""
    return [name for name in curve.data.column_names if name.startswith("gold_") and not name.endswith("_se")]


@lru_cache(maxsize=1)
def dot_rows(experiment: Experiment) -> Rows:
    """The dots of all runs, and every n of best-of-n."""
    folders = {(record.run, record.seed): record.folder for record in experiment.records}
    share = max(FEWEST_DOTS, MOST_DOTS // max(1, len(experiment.table.records)))
    rows: Rows = []
    for curve in experiment.table.curves:
        folder = None if curve.method == BEST_OF_N else folders.get((curve.run, curve.seed))
        places = _thinned(curve, rollout_steps(folder) if folder else [], share)
        own = {name: getattr(curve, name) for name in ("run", "curve", "condition", "seed", "axis", "budget")}
        own["method"] = method_title(curve.method)
        columns = {name: curve.series(name).tolist() for name in (*METRICS, *other_golds(curve))}
        for place in places:
            figures = plain({name: values[place] for name, values in columns.items()})
            rows.append(own | figures | {"at": float(curve.position[place])})
    return rows


def _thinned(curve: Curve, kept: Sequence[int], most: int) -> list[int]:
    """Rows of a curve that get a dot, evenly spread, first and last among them: of those that have samples, if any,
    and of those that have gold, if any."""
    places = np.arange(len(curve.position))
    for good in (np.isin(curve.position, kept), np.isfinite(curve.series("gold"))):
        places = places[good[places]] if good[places].any() else places
    if len(places) > most:
        places = places[np.linspace(0, len(places) - 1, most).round().astype(int)]
    return places.tolist()


def means(curves: Iterable[Curve], metric: str, by_kl: bool = False) -> Rows:
    """Means over seeds, with 95% t intervals: of each run step by step, smoothed, or against KL of all runs of a curve
    together, where only a single run is smoothed."""
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        if np.isfinite(curve.series(metric)).any():
            groups.setdefault(curve.curve if by_kl else curve.run, []).append(curve)
    rows: Rows = []
    for group, own in groups.items():
        values = [curve.series(metric) for curve in own]
        if not by_kl or len(own) == 1:
            values = [moving_mean(series) for series in values]
        if by_kl:
            seeds = [[n for n, c in enumerate(own) if c.seed == seed] for seed in {c.seed: None for c in own}]
            roots = [np.concatenate([own[place].sqrt_kl for place in seed]) for seed in seeds]
            band = band_by_axis(roots, [np.concatenate([values[place] for place in seed]) for seed in seeds])
            band = replace(band, axis=band.axis**2)
        else:
            band = band_by_step([curve.position for curve in own], values)
        rows += band_rows(band, curve=own[0].curve, group=group, budget=own[0].budget)
    return rows


def band_rows(band: Band, **labels: Any) -> Rows:
    """A line with its band, which is as thin as the line itself with one seed."""
    kept = np.linspace(0, len(band.axis) - 1, min(MOST_VERTICES, len(band.axis))).round().astype(int)
    low, high = (np.where(np.isfinite(edge), edge, band.mean) for edge in (band.low, band.high))
    columns = np.stack([band.axis, band.mean, low, high], axis=1)[kept].tolist()
    return [labels | dict(zip(("x", "y", "low", "high"), row, strict=True)) for row in columns]


def bounds(own: Estimate) -> dict[str, float | None]:
    """Where the interval of a mean begins and ends: at the mean itself where there is none."""
    return dict(zip(("low", "high"), own.interval or (own.mean, own.mean), strict=True))


def limits(curves: Iterable[Curve], metric: str) -> list[float] | None:
    """The range of a metric, a little widened: with few seeds, bands may be far longer than all differences."""
    values = np.concatenate([np.zeros(0), *(curve.series(metric) for curve in curves)])
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.5
    return [low - margin, high + margin]


def kl_axis(curves: Iterable[Curve]) -> Spec:
    """KL of these curves in nats, spaced by its square root; an estimate under zero stands at zero."""
    top = limits(curves, "kl_nats")
    return axis("x", KL_TITLE, [0, max(top[1], 0.01) if top else 1], type="sqrt", nice=False, clamp=True)
