"""What was asked for, point by point, and what came of it: KL reached, gold at the end, and the price paid."""

from collections.abc import Sequence

import numpy as np

from framework.analysis.experiment import CurveAnalysis, Experiment
from framework.measure import HELD
from framework.report.charts import GREY, Figure, Palette, Panel, Rows, Section, Spec, axis, banded, bars, line, spots
from framework.report.drawn import bounds, means

LARGEST_RATIO = 2.5  # of KL to the budget that is drawn: what goes beyond would flatten all the rest
MOST_ROWS = 6  # curves whose traces are drawn
ASKED = "KL budget asked for (nats per sequence)"


def budgets(experiment: Experiment) -> Section | None:
    """The table of points, and figures where budgets were asked for; None with a single point a curve."""
    curves = [own for own in experiment.curves.values() if own.points]
    asked = sorted({p.choice.budget for own in curves for p in own.points if p.choice.budget is not None})
    if not asked and all(len(own.points) == 1 for own in curves):
        return None
    figures = [_asked(experiment, asked), _traces(experiment, asked)] if len(asked) > 1 else []
    title = "Each budget" if asked else "Each point"
    return Section("budgets", title, figures, {"curves": curves, "held": HELD})


def _asked(experiment: Experiment, asked: Sequence[float]) -> Figure:
    """KL reached, and gold at the end, against the budget."""
    curves = list(experiment.curves.values())
    palette = Palette(tuple(experiment.curves))
    data: dict[str, Rows] = {"runs": [], "means": [], "advised": [], "losses": []}
    shifts = np.exp(np.linspace(-0.1, 0.1, len(curves))).tolist() if len(curves) > 1 else [1.0]
    for own, shift in zip(curves, shifts, strict=True):
        for name, rows in _rows(own, shift).items():
            data[name] += rows
    held = sum(point.num_held for own in curves for point in own.points)
    caption = (
        f"Left: a mark is a run, by its mean KL over its last fifth (k1 estimate). {held} of {len(data['runs'])} runs are"
        f" within {HELD:.0%} of their budget (shaded). Right: small dots are seeds, large ones their mean, bars its 95% t"
        " interval; the ring is the recommended budget, the largest whose gold is, seed by seed and with confidence, no"
        " further below that of the best budget than the horizontal line. Curves stand side by side for legibility."
    )
    panels = [_reached(palette, data["runs"], asked), _gold(palette, data, asked)]
    return Figure("budgets", "Budgets asked for, reached, and what they brought", caption, panels, palette)


def _rows(own: CurveAnalysis, shift: float) -> dict[str, Rows]:
    """Runs, means over seeds, the advised point and what may be lost, of one curve."""
    look = {"curve": own.curve, "group": own.curve}
    runs: Rows = [
        {"x": run.outcome.budget * shift, "asked": run.outcome.budget, "seed": run.seed, **look}
        | {"y": max(run.outcome.kl_nats_end, 1e-3), "gold": run.outcome.gold_end}
        for run in own.outcomes
        if run.outcome.budget and run.outcome.kl_nats_end is not None
    ]
    points = [point for point in own.points if point.choice.budget and point.gold.mean is not None]
    rows: Rows = [
        {"x": (point.choice.budget or 0) * shift, "asked": point.choice.budget, "y": point.gold.mean}
        | {**look, **bounds(point.gold)}
        for point in points
    ]
    if own.advice is None or not rows:
        return {"runs": runs, "means": rows}
    best = [r.gold.mean for r in own.advice.rows if r.choice == own.advice.best and r.gold.mean is not None]
    advised = [row for row, point in zip(rows, points, strict=True) if point.choice == own.advice.choice]
    ends = {"low": rows[0]["x"] / 1.5, "high": rows[-1]["x"] * 1.5}
    losses = [{"y": gold - own.advice.epsilon, **look, **ends} for gold in best]
    return {"runs": runs, "means": rows, "advised": advised, "losses": losses}


def _budget_axis(name: str, asked: Sequence[float], title: str | None = None) -> Spec:
    own = axis(name, title, [asked[0] / 1.5, asked[-1] * 1.5], type="log", nice=False)
    ticks = list(asked)[:: -(-len(asked) // 10)]
    return own | {"axis": {"values": ticks, "labelExpr": "format(datum.value, '~g')"}}


def _reached(palette: Palette, runs: Rows, asked: Sequence[float]) -> Panel:
    x, y = _budget_axis("x", asked, ASKED), _budget_axis("y", asked)
    ends = (asked[0] / 1.5, asked[-1] * 1.5)
    span: Rows = [{"x": at, "y": at, "low": at * (1 - HELD), "high": at * (1 + HELD)} for at in ends]
    tips = {"curve": "curve", "seed": "seed", "asked": "asked (nats)", "y": "reached (nats)", "gold": "gold"}
    marks = spots("runs", x, y, palette.by("color", "shape"), tips=tips, filled=False, strokeWidth=1.6, size=60)
    layers = [*banded("span", x, y, GREY, width=1), marks]
    return Panel("KL reached (nats per sequence)", layers, {"span": span, "runs": runs}, 280)


def _gold(palette: Palette, data: dict[str, Rows], asked: Sequence[float]) -> Panel:
    values = [row["gold"] for row in data["runs"] if row["gold"] is not None] or [0.0, 1.0]
    margin = 0.08 * (max(values) - min(values)) or 0.5
    x = _budget_axis("x", asked, ASKED)
    y = axis("y", domain=[min(values) - margin, max(values) + margin])
    tips = {"curve": "curve", "asked": "budget (nats)", "y": "mean gold", "low": "95% from", "high": "to"}
    colour, lines = palette.by("color"), palette.by("color", "strokeDash")
    layers = [
        bars("losses", x, y, lines, channel="x"),
        spots("runs", x, y | {"field": "gold"}, colour, size=14, opacity=0.5),
        line("means", x, y, lines, width=1),
        bars("means", x, y, colour),
        spots("means", x, y, palette.by("color", "shape"), tips=tips, size=60),
        spots("advised", x, y, colour, filled=False, size=260, strokeWidth=2),
    ]
    return Panel("Gold at the end (gold scorer's units)", layers, data, 280)


def _traces(experiment: Experiment, asked: Sequence[float]) -> Figure:
    """KL over its budget, and the coefficient, step by step: two panels a curve, a colour a budget."""
    scale = {"scheme": "viridis", "domain": list(asked)}
    legend = {"title": "Budget (nats)", "columns": 8}
    look = {"color": {"field": "budget", "type": "ordinal", "sort": None, "scale": scale, "legend": legend}}
    panels = []
    for name in list(experiment.curves)[:MOST_ROWS]:
        own = [curve for curve in experiment.table.records if curve.curve == name and curve.budget]
        kl, coefs = (means(own, metric) for metric in ("kl_nats", "kl_coef"))
        ratios: Rows = [row | {"y": row["y"] / row["budget"]} for row in kl]
        held: Rows = [{"x": row["x"], "y": 1, "low": 1 - HELD, "high": 1 + HELD} for row in kl]
        top = min(LARGEST_RATIO, 0.1 + max((row["y"] for row in ratios), default=1.2))
        x, y = axis("x", own[0].axis if own else None, nice=False), axis("y", domain=[0, max(top, 1.2)])
        spent = [*banded("held", x, y, GREY, width=1), line("means", x, y, look)]
        price = line("means", x, axis("y", type="log", nice=False), look)
        panels.append(Panel(f"{name}: KL / budget", spent, {"means": ratios, "held": held}, 200))
        paid: Rows = [row for row in coefs if row["y"] > 0]
        panels.append(Panel(f"{name}: coefficient", [price], {"means": paid}, 200))
    caption = (
        f"Means over seeds (k1 estimate, smoothed), of the first {len(panels) // 2} curves. The shade is the budget ±"
        f" {HELD:.0%}; above {LARGEST_RATIO:g} is cut."
    )
    return Figure("traces", "How KL was held, and at what price", caption, panels, widest=2)
