"""The curves: proxy, gold and their gap against KL and along the axis, what was spent, and where the time went."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from framework.analysis.experiment import Experiment
from framework.analysis.run_folder import load_run
from framework.analysis.table import Curve
from framework.report.charts import Figure, Palette, Panel, Rows, Section, axis, banded, dots, layer, line
from framework.report.drawn import kl_axis, limits, means, method_title, other_golds

FIGURES = {
    "by_kl": ("Gold, proxy and their gap against KL", ("gold", "proxy", "gap")),
    "by_step": ("The same, {0} by {0}", ("gold", "proxy", "gap")),
    "kl": ("KL spent, and its price", ("kl_nats", "kl_coef")),
    "signals": ("Disagreement and length", ("disagreement", "response_tokens", "ended")),
}
TITLES = {
    "gold": "Gold (gold scorer's units)",
    "proxy": "Proxy (reference s.d.)",
    "gap": "Gap: proxy − gold (start s.d.)",
    "kl_nats": "KL to the initial policy (nats)",
    "kl_coef": "KL coefficient (reward per nat)",
    "disagreement": "Disagreement (reference s.d.)",
    "response_tokens": "Response length (tokens)",
    "ended": "Share of responses that end",
}
STAGES = {
    "rollout": "#0072B2", "reference": "#56B4E9", "reward": "#E69F00", "gold": "#F0E442",
    "update": "#D55E00", "driver": "#000000", "log": "#999999", "checkpoint": "#CC79A7",
}  # fmt: skip
MOST_BANDS = 8  # lines in a panel beyond which their bands would hide each other
READING = (
    "Dots are single steps; the line is the mean over seeds and the band its pointwise 95% t interval; with one seed the line"
    " is a moving mean. The nearest dot tells its numbers, and a click opens its samples."
)


def curves(experiment: Experiment) -> Section | None:
    """The figures, condition by condition where there are several."""
    runs = experiment.table.records
    figures: list[Figure] = []
    # With several budgets, what was spent is drawn beside what was asked for.
    left_out = "kl" if len({curve.budget for curve in runs} - {None}) > 1 else ""
    for condition in dict.fromkeys(curve.condition for curve in runs):
        own = [curve for curve in runs if curve.condition == condition]
        palette = Palette(tuple(dict.fromkeys(curve.curve for curve in own)))
        others = tuple(dict.fromkeys(name for curve in own for name in other_golds(curve)))
        for name, (title, metrics) in {**FIGURES, "golds": ("The other gold signals", others)}.items():
            drawn = [_panel(own, metric, palette, name == "by_kl") for metric in metrics if name != left_out]
            if panels := [panel for panel in drawn if panel]:
                stem = "_".join(filter(None, (name, condition)))
                heading = " · ".join(filter(None, (title.format(own[0].axis), condition)))
                figures.append(Figure(stem, heading, "" if figures else READING, panels, palette))
    figures += [timing] if (timing := _time(experiment)) else []
    return Section("curves", "The curves", figures) if figures else None


def _panel(runs: Sequence[Curve], metric: str, palette: Palette, is_kl: bool) -> Panel | None:
    if metric == "disagreement":  # a single head has none
        runs = [curve for curve in runs if np.nan_to_num(curve.series(metric)).any()]
    limit = limits(runs, metric)
    if limit is None:
        return None
    rows, y = means(runs, metric, is_kl), axis("y", domain=limit)
    if metric == "kl_coef":
        rows, y = [row for row in rows if row["y"] > 0], axis("y", type="log", nice=False)
    x = kl_axis(runs) if is_kl else axis("x", runs[0].axis, nice=False, padding=5)
    where = {"condition": [runs[0].condition], "method": sorted({method_title(curve.method) for curve in runs})}
    found = dots(x | {"field": "kl_nats" if is_kl else "at"}, y | {"field": metric}, palette, where)
    lines = banded("means", x, y, palette.by("color", "strokeDash"))
    if len({row["group"] for row in rows}) > MOST_BANDS:
        lines = [line("means", x, y, palette.by("color", "strokeDash"), width=1.2)]
    return Panel(TITLES.get(metric, f"{metric} (its own units)"), [found, *lines], {"means": rows})


def _time(experiment: Experiment) -> Figure | None:
    """Mean seconds a step by stage, one stacked bar a curve, with the wall-clock as a tick."""
    timings: dict[str, list[dict[str, Any]]] = {}
    for record in experiment.records:
        if record.folder is not None:
            timings.setdefault(record.curve, []).extend(load_run(record.folder).timings)
    walls: Rows = []
    rows: Rows = []
    words = []
    for curve, steps in timings.items():
        totals: Counter[str] = Counter()
        for step in steps:
            totals.update(step.get("stage_seconds") or {})
        rows += [{"curve": curve, "stage": stage, "seconds": s / len(steps)} for stage, s in totals.items() if s]
        if wall := sum(step.get("seconds") or 0.0 for step in steps):
            walls.append({"curve": curve, "seconds": wall / len(steps)})
            tokens = sum(step.get("tokens") or 0 for step in steps)
            peak = max((size for step in steps for size in (step.get("peak_rss_mb") or {}).values()), default=0)
            size = f", at most {peak:,.0f} MB in a process" if peak else ""
            words.append(
                f"{curve}: {wall / len(steps):.3g} s a step, {tokens / wall:,.0f} generated tokens a second{size}"
            )
    caption = (
        f"Mean over steps and seeds. {'; '.join(words)}. Stages that run at the same time are each counted in full, so a"
        " bar may reach past the wall-clock tick; driver is time in which no role computes."
    )
    return Figure("time", "Where the time went", caption, [_bars(rows, walls)]) if rows else None


def _bars(rows: Rows, walls: Rows) -> Panel:
    names = list(dict.fromkeys([*STAGES, *(row["stage"] for row in rows)]))
    scale = {"domain": names, "range": [STAGES.get(name, "#b07aa1") for name in names]}
    colour = {"field": "stage", "type": "nominal", "scale": scale, "title": None, "legend": {"columns": 4}}
    y = {"field": "curve", "type": "nominal", "title": None, "sort": None, "scale": {"paddingInner": 0.35}}
    place = {"x": axis("seconds", "seconds per step", zero=True), "y": y}
    tips = {"tooltip": [{"field": name} for name in ("curve", "stage", "seconds")]}
    stack = layer("bar", "stages", [place, {"color": colour}, tips], stroke="white", strokeWidth=0.5)
    ticks = layer("tick", "walls", [place], color="black", thickness=2, size=24)
    return Panel("Seconds per step by stage", [stack, ticks], {"stages": rows, "walls": walls}, 40 + 30 * len(walls))
