"""The plots of a sweep: gold against sqrt(KL) with its fits, best-of-n beside RL, and gold at each budget."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from framework.analysis.curves import band_by_axis
from framework.analysis.frontier import Fit
from framework.analysis.reached import mean_at_end
from framework.analysis.sweep_analysis import MethodAnalysis, SweepAnalysis
from framework.analysis.sweep_columns import Optimiser
from framework.analysis.sweep_table import SweepTable, TrialCurve
from framework.report.figures import Figure, _canvas, _look, _rendered
from framework.report.reading import number
from framework.report.sweep_reading import main_fit

SQRT_KL = "√KL to the initial policy (√nats per sequence)"
GOLD = "Gold (gold scorer's units)"
PANELS = (("gold", GOLD), ("proxy", "Proxy (reference s.d.)"), ("gap", "Gap: proxy − gold (step-0 s.d.)"))
NATS = (0.25, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Where the upper axis may have a tick, in nats per sequence."""
LEGEND_WIDTH = 118
"""Characters that fit side by side above a figure."""
MOST_BY_NAME = 20
"""Names that the words for a figure list; beyond that, the tables do."""


def draw_frontier(table: SweepTable, analysis: SweepAnalysis) -> Figure:
    """Gold, proxy and gap of every trial against sqrt(KL), with the fit, its band and its peak on gold."""
    with _canvas(len(PANELS), height=4.3) as (canvas, panels):
        for axes, (metric, title) in zip(panels, PANELS, strict=True):
            axes.set_title(title)
            curves = [table.curves_of(name, "rl") for name in analysis.methods]
            drawn = [_points(axes, own, metric, _look(place)[0]) for place, own in enumerate(curves)]
            with same_height(axes):
                for place, method in enumerate(analysis.methods.values()):
                    if metric == "gold":
                        draw_fit(axes, main_fit(method), _look(place))
                    else:
                        _mean_over_seeds(axes, curves[place], metric, _look(place))
            finish_sqrt_kl(axes, is_empty=not any(drawn))
        method_legend(canvas, list(analysis.methods))
        caption = (
            "Small dots are single steps of all trials and seeds, rings their means over the last fifth of a trial. Gold: the"
            " line is the fit R0 + d (α − β log d) with d = √KL, the band its pointwise 95% interval over seeds; a"
            " diamond is a peak that the data support, the bar through it where the peak may be (95%). Proxy and gap: the"
            " mean over seeds and its pointwise 95% t interval. KL is the k1 estimate of the step."
        )
        alt = f"Gold, proxy and their gap against the square root of KL. {_peaks_in_words(analysis, 'rl')}"
        return _rendered(canvas, "frontier", "Gold, proxy and their gap against √KL", alt, caption)


def draw_beside_best_of_n(table: SweepTable, analysis: SweepAnalysis) -> Figure | None:
    """Gold against sqrt(KL) by RL and by best-of-n, a panel a method; None where no method has best-of-n."""
    names = [name for name, method in analysis.methods.items() if "best_of_n" in method.frontiers]
    if not names:
        return None
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with _canvas(columns, height=0.7 + 3.6 * rows, rows=rows) as (canvas, panels):
        for axes in panels[1 : len(names)]:
            axes.sharex(panels[0])
            axes.sharey(panels[0])
        for axes in panels[len(names) :]:
            axes.set_visible(False)
        looks: dict[Optimiser, tuple[str, Any]] = {"rl": _look(0), "best_of_n": _look(1)}
        for axes, name in zip(panels, names, strict=False):
            axes.set_title(name)
            drawn = [_gold_points(axes, table.curves_of(name, own), look[0]) for own, look in looks.items()]
            with same_height(axes):
                for optimiser, look in looks.items():
                    draw_fit(axes, main_fit(analysis.methods[name], optimiser), look)
            finish_sqrt_kl(axes, is_empty=not any(drawn))
        for axes in panels[::columns]:
            axes.set_ylabel(GOLD)
        handles = [Line2D([], [], color=colour, ls=dashes, lw=2.1) for colour, dashes in looks.values()]
        canvas.legend(handles, ["RL", "best-of-n"], loc="outside upper left", ncols=2, handlelength=3)
        caption = (
            "Small dots are steps of RL, squares values of n. Solid: R0 + d (α − β log d) fitted to RL; dashed: R0 + d (α −"
            " β d) fitted to best-of-n; bands, diamonds and bars as above. KL of RL is the k1 estimate, that of best-of-n"
            " log n − (n − 1)/n: at equal KL the two need not be equally far from the initial policy in other respects."
        )
        alt = f"Gold by RL and by best-of-n against the square root of KL. {_peaks_in_words(analysis, 'best_of_n')}"
        return _rendered(canvas, "best_of_n_beside_rl", "Best-of-n beside RL", alt, caption)


def draw_ends(analysis: SweepAnalysis) -> Figure | None:
    """Gold and proxy at the end of the trials, by budget; None where no trial has a budget."""
    asked = sorted({budget for method in analysis.methods.values() for budget in method.by_budget})
    if not asked:
        return None
    names = list(analysis.methods)
    with _canvas(2, height=4.1) as (canvas, panels):
        for axes, (metric, title) in zip(panels, PANELS, strict=False):
            axes.set_title(f"{title}, at the end")
            placed = [(m, metric, p, beside(p, len(names))) for p, m in enumerate(analysis.methods.values())]
            drawn = [_ends(axes, *each) for each in placed]
            with same_height(axes):
                for each in placed:
                    _bars(axes, *each)
            budget_axis(axes, asked)
            not_measured(axes, is_empty=not any(drawn))
        method_legend(canvas, names)
        caption = (
            "Means over the last fifth of each trial: small dots are seeds, large ones their mean, bars its 95% t interval. The"
            " ring is the recommended budget: the largest whose gold is, seed by seed and with confidence, no further below"
            " that of the best budget than the horizontal line. Methods are drawn side by side for legibility."
        )
        parts = [
            f"{name}: "
            + ", ".join(
                f"{budget:g} nats {number(row.gold.mean)}" for budget, row in method.by_budget.items()
            )
            for name, method in list(analysis.methods.items())[:MOST_BY_NAME]
        ]
        alt = f"Gold and proxy at the end against the budget. Gold: {'; '.join(parts)}."
        return _rendered(canvas, "gold_by_budget", "Gold at each budget", alt, caption)


def draw_fit(axes: Axes, fit: Fit | None, look: tuple[str, Any]) -> None:
    """A fitted curve over the d seen, its band, and its peak with interval where the data support one."""
    if fit is None:
        return
    colour, dashes = look
    d = np.linspace(*fit.d_range, 200)
    axes.plot(d, fit.curve(d), color=colour, ls=dashes, lw=2.1, zorder=4)
    if (band := fit.band(d)) is not None:
        axes.fill_between(d, *band, color=colour, alpha=0.18, lw=0, zorder=3)
    if fit.peak.supported and fit.peak.d is not None and fit.peak.gold is not None:
        if fit.peak.d_interval is not None:
            axes.plot(
                fit.peak.d_interval, [fit.peak.gold] * 2, "|-", color=colour, lw=1.6, ms=9, mew=1.6, zorder=5
            )
        axes.plot(fit.peak.d, fit.peak.gold, "D", ms=6, mfc="white", mec=colour, mew=1.8, zorder=6)


@contextmanager
def same_height(axes: Axes) -> Iterator[None]:
    """Keeps the range of the vertical axis: with few seeds bands and bars may be far longer than all differences."""
    limits = axes.get_ylim()
    yield
    axes.set_ylim(limits)


def finish_sqrt_kl(axes: Axes, is_empty: bool) -> None:
    """Label the axis of sqrt(KL), with nats along the top."""
    axes.set_xlabel(SQRT_KL)
    if not_measured(axes, is_empty):
        return
    axes.set_xlim(left=0)
    nats = axes.secondary_xaxis("top", functions=(np.square, lambda kl: np.sqrt(np.maximum(kl, 0.0))))
    largest = axes.get_xlim()[1] ** 2
    ticks = [value for value in NATS if 0.015 * largest < value <= largest]
    nats.set_xticks(ticks, [f"{value:g}" for value in ticks])
    nats.xaxis.set_minor_locator(NullLocator())
    nats.tick_params(labelsize=8.5, colors="#666666", pad=1)
    nats.set_xlabel("nats", fontsize=8.5, color="#666666", loc="right", labelpad=2)


def not_measured(axes: Axes, is_empty: bool) -> bool:
    """Say so in a panel that has nothing to show; returns whether it has nothing."""
    if is_empty:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="#666666")
        axes.set_xticks([])
        axes.set_yticks([])
    return is_empty


def budget_axis(axes: Axes, asked: Sequence[float]) -> None:
    """A logarithmic axis of budgets."""
    axes.set_xscale("log")
    axes.set_xticks(*some_ticks(asked))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(asked[0] / 1.5, asked[-1] * 1.5)
    axes.set_xlabel("KL budget asked for (nats per sequence)")


def some_ticks(asked: Sequence[float]) -> tuple[list[float], list[str]]:
    """Positions and labels: each budget, or as many as there is room for."""
    shown = list(asked)[:: -(-len(asked) // 10)]
    return shown, [f"{budget:g}" for budget in shown]


def beside(place: int, count: int) -> float:
    """A factor on a logarithmic axis that puts so many methods side by side."""
    return 1.0 if count == 1 else float(np.exp(0.22 * (place / (count - 1) - 0.5)))


def method_legend(canvas: Canvas, names: Sequence[str], markers: str = "") -> None:
    """Colour of each method with its dashes, or its marker, above the figure; a single method needs none."""
    if len(names) < 2:
        return
    handles = [
        Line2D([], [], color=colour, ls="" if markers else dashes, lw=2.1)
        for colour, dashes in map(_look, range(len(names)))
    ]
    for place, handle in enumerate(handles if markers else ()):
        handle.set_marker(markers[place % len(markers)])
    canvas.legend(handles, list(names), loc="outside upper left", ncols=legend_columns(names), handlelength=3)


def legend_columns(names: Sequence[str]) -> int:
    """How many of these stand side by side."""
    return max(1, min(len(names), LEGEND_WIDTH // (max(len(name) for name in names) + 9)))


def _points(axes: Axes, curves: Sequence[TrialCurve], metric: str, colour: str) -> bool:
    """The steps of one method and where its trials ended; False without any."""
    shown = _measured(curves, metric)
    if not shown:
        return False
    x, y = np.concatenate([c.sqrt_kl for c in shown]), np.concatenate([c.series(metric) for c in shown])
    alpha = float(np.clip(60 / np.sqrt(len(x)), 0.06, 0.35))
    axes.plot(x, y, "o", ms=1.8, color=colour, alpha=alpha, mew=0, rasterized=True)
    ends = [
        (mean_at_end(curve, curve.sqrt_kl), mean_at_end(curve, curve.series(metric)))
        for curve in shown
        if curve.is_complete
    ]
    ring: Any = {"ms": 4.5, "mfc": "white", "mec": colour, "mew": 1, "alpha": 0.85}
    axes.plot(*_columns(ends), "o", zorder=3.5, **ring)
    return True


def _mean_over_seeds(axes: Axes, curves: Sequence[TrialCurve], metric: str, look: tuple[str, Any]) -> None:
    """The mean over seeds against sqrt(KL), the trials of a seed taken together, with its band."""
    shown, (colour, dashes) = _measured(curves, metric), look
    if not shown:
        return
    own = [[curve for curve in shown if curve.seed == seed] for seed in dict.fromkeys(c.seed for c in shown)]
    mean = band_by_axis(
        [np.concatenate([curve.sqrt_kl for curve in seed]) for seed in own],
        [np.concatenate([curve.series(metric) for curve in seed]) for seed in own],
    )
    axes.fill_between(mean.axis, mean.low, mean.high, color=colour, alpha=0.18, lw=0)
    axes.plot(mean.axis, mean.mean, color=colour, ls=dashes, lw=2.1, zorder=4)


def _measured(curves: Sequence[TrialCurve], metric: str) -> list[TrialCurve]:
    return [
        curve for curve in curves if (np.isfinite(curve.series(metric)) & np.isfinite(curve.sqrt_kl)).any()
    ]


def _gold_points(axes: Axes, curves: Sequence[TrialCurve], colour: str) -> bool:
    if not curves:
        return False
    x, y = (
        np.concatenate(values) for values in ([c.sqrt_kl for c in curves], [c.series("gold") for c in curves])
    )
    if curves[0].optimiser == "best_of_n":
        axes.plot(x, y, "s", ms=4.5, color=colour, alpha=0.7, mew=0, zorder=3.5)
    else:
        axes.plot(x, y, "o", ms=1.8, color=colour, alpha=0.12, mew=0, rasterized=True)
    return bool((np.isfinite(x) & np.isfinite(y)).any())


def _ends(axes: Axes, method: MethodAnalysis, metric: str, place: int, shift: float) -> bool:
    """The seeds of one method and their means, by budget, the recommended one ringed; False without any."""
    (colour, dashes), ends = _look(place), [end for end in method.trials if end.budget is not None]
    seeds = [(end.budget * shift * 1.06, getattr(end, metric)) for end in ends if end.budget is not None]
    axes.plot(*_columns(seeds), "o", ms=3, color=colour, alpha=0.45, mew=0)
    means = {budget: getattr(row, metric).mean for budget, row in method.by_budget.items()}
    known = {budget: mean for budget, mean in means.items() if mean is not None}
    x, y = _columns([(budget * shift, mean) for budget, mean in known.items()])
    axes.plot(x, y, color=colour, ls=dashes, lw=1, alpha=0.6)
    axes.plot(x, y, "o", ms=5.5, color=colour, mew=0)
    if metric == "gold" and (advice := method.advice) is not None:
        axes.axhline(known[advice.best_budget] - advice.epsilon, color=colour, ls=dashes, lw=1, alpha=0.8)
        ring: Any = {"ms": 12, "mfc": "none", "mec": colour, "mew": 1.8}
        axes.plot(advice.budget * shift, known[advice.budget], "o", zorder=5, **ring)
    return bool(known)


def _bars(axes: Axes, method: MethodAnalysis, metric: str, place: int, shift: float) -> None:
    for budget, row in method.by_budget.items():
        if (bounds := getattr(row, metric).interval) is not None:
            axes.plot([budget * shift] * 2, bounds, color=_look(place)[0], lw=1.8)


def _columns(pairs: Sequence[tuple[float | None, float | None]]) -> tuple[list[float], list[float]]:
    known = [(x, y) for x, y in pairs if x is not None and y is not None]
    return [x for x, _ in known], [y for _, y in known]


def _peaks_in_words(analysis: SweepAnalysis, optimiser: Optimiser) -> str:
    fits = [(name, main_fit(method, optimiser)) for name, method in analysis.methods.items()]
    parts = [f"{name}: {fit.peak.reason}" for name, fit in fits if fit is not None]
    return "; ".join(parts[:MOST_BY_NAME]) + "." if parts else "Nothing could be fitted."
