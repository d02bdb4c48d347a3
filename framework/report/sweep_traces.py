"""The plots of how well KL was held in a sweep: budgets asked against reached, and the traces of the coefficient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from framework.analysis.curves import band_by_step
from framework.analysis.reached import TOLERANCE, TrialEnd
from framework.analysis.sweep_analysis import SweepAnalysis
from framework.analysis.sweep_table import SweepTable, TrialCurve
from framework.report.figures import COEF, KL, Figure, _canvas, _look, _rendered
from framework.report.sweep_figures import (
    beside,
    budget_axis,
    legend_columns,
    method_legend,
    not_measured,
    some_ticks,
)

MOST_ROWS = 12
"""Methods whose traces are drawn."""
MOST_NAMES = 12
"""Trials that a caption names; the table of trials has all."""
MARKERS = "osD^vP"
LARGEST_RATIO = 2.5
"""Of KL to the budget that is drawn: what goes beyond would flatten all the rest."""
SHADE = "#8a909b"


@dataclass(frozen=True)
class Bundle:
    """Trials that differ in nothing but the seed, and how they are drawn."""

    label: str
    look: tuple[Any, Any]
    """Colour and dashes."""
    curves: Sequence[TrialCurve]


def draw_reached(analysis: SweepAnalysis) -> Figure | None:
    """KL over the last fifth of each trial against its budget; None where no trial has both."""
    ends = [
        (place, end, end.budget, end.kl_nats, end.ratio)
        for place, method in enumerate(analysis.methods.values())
        for end in method.trials
        if end.budget and end.kl_nats is not None and end.ratio is not None
    ]
    if not ends:
        return None
    asked = sorted({budget for _, _, budget, _, _ in ends})
    span = np.array([asked[0] / 1.5, asked[-1] * 1.5])
    with _canvas(2, height=4.1) as (canvas, panels):
        reached, ratio = panels
        reached.set_title("KL reached (nats per sequence)")
        reached.set_yscale("log")
        reached.fill_between(
            span, span * (1 - TOLERANCE), span * (1 + TOLERANCE), color=SHADE, alpha=0.3, lw=0
        )
        reached.plot(span, span, color=SHADE, lw=1)
        ratio.set_title("KL reached / budget")
        ratio.axhspan(1 - TOLERANCE, 1 + TOLERANCE, color=SHADE, alpha=0.3, lw=0)
        ratio.axhline(1, color=SHADE, lw=1)
        for place in dict.fromkeys(place for place, *_ in ends):
            colour, marker = _look(place)[0], MARKERS[place % len(MARKERS)]
            own = np.array([values for at, _, *values in ends if at == place])
            above = own[own[:, 1] > 0]
            reached.plot(above[:, 0], above[:, 1], marker, ms=6, mfc="none", mec=colour, alpha=0.75)
            shifted = own[:, 0] * beside(place, len(analysis.methods))
            cut = np.minimum(own[:, 2], LARGEST_RATIO)
            ratio.plot(shifted, cut, marker, ms=5, mew=0, alpha=0.65, color=colour)
        reached.set_yticks(*some_ticks(asked))
        reached.yaxis.set_minor_locator(NullLocator())
        for axes in panels:
            budget_axis(axes, asked)
        method_legend(canvas, list(analysis.methods), MARKERS)
        said = _held([end for _, end, *_ in ends])
        is_cut = any(over > LARGEST_RATIO for *_, over in ends)
        beyond = f" Ratios above {LARGEST_RATIO:g} are drawn there." if is_cut else ""
        caption = (
            "A mark is a trial, by its mean KL over its last fifth (k1 estimate); on the right methods stand side by side."
            f"{beyond} {said}"
        )
        alt = f"KL reached against the budget asked for, and their ratio. {said}"
        return _rendered(canvas, "budgets_reached", "Budgets asked against reached", alt, caption)


def draw_traces(table: SweepTable, analysis: SweepAnalysis) -> Figure:
    """The KL coefficient, and KL over the budget, step by step: a row a method, a colour a budget.

    Where no trial has a budget: a single row, KL itself, and a colour a method.
    """
    names = list(analysis.methods)
    curves = {name: table.curves_of(name, "rl") for name in names}
    asked = sorted({c.budget for own in curves.values() for c in own if c.budget is not None})
    if asked:
        rows = {name: _by_budget(own, asked) for name, own in list(curves.items())[:MOST_ROWS]}
        legend = [(f"{budget:g}", (_budget_colour(budget, asked), "-")) for budget in asked]
    else:
        rows = {"": [Bundle(name, _look(place), curves[name]) for place, name in enumerate(names)]}
        legend = [(bundle.label, bundle.look) for bundle in rows[""]]
    height = 0.8 + (2.9 if len(rows) < 3 else 2.2) * len(rows)
    with _canvas(2, height=height, rows=len(rows)) as (canvas, panels):
        for place, (name, bundles) in enumerate(rows.items()):
            _row(panels[2 * place : 2 * place + 2], name, bundles, bool(asked))
        handles = [Line2D([], [], color=look[0], ls=look[1], lw=2.1) for _, look in legend]
        labels = [label for label, _ in legend]
        title = {"title": "Budget (nats per sequence)"} if asked else {}
        canvas.legend(
            handles, labels, loc="outside upper left", ncols=legend_columns(labels), handlelength=2.2,
            alignment="left", **title,
        )  # fmt: skip
        return _rendered(canvas, "traces", *_traces_in_words(asked, names))


def _traces_in_words(asked: list[float], names: list[str]) -> tuple[str, str, str]:
    """Title, alternative text and caption."""
    caption = (
        "Thin lines are trials, thick ones the mean over the seeds that ended as they should, where all of them are."
        " KL is smoothed (k1 estimate)."
    )
    if asked:
        caption += f" The shade is the budget ± {TOLERANCE:.0%}; traces above {LARGEST_RATIO:g} times the budget are cut."
        if len(names) > MOST_ROWS:
            caption += f" The first {MOST_ROWS} of {len(names)} methods."
    what = "KL over its budget" if asked else "KL"
    alt = f"Traces by step of the KL coefficient, on a logarithmic axis, and of {what}; the tables give the values at the end."
    return f"The KL coefficient, and {what}, step by step", alt, caption


def _by_budget(curves: Sequence[TrialCurve], asked: list[float]) -> list[Bundle]:
    found = [(budget, [c for c in curves if c.budget == budget]) for budget in asked]
    bundles = [
        Bundle(f"{budget:g}", (_budget_colour(budget, asked), "-"), own) for budget, own in found if own
    ]
    without = [curve for curve in curves if curve.budget is None]
    return [*bundles, *([Bundle("", (SHADE, "-"), without)] if without else [])]


def _budget_colour(budget: float, asked: list[float]) -> Any:
    """From dark to light along a palette that keeps its order in grey."""
    return mpl.colormaps["viridis"](0.9 * asked.index(budget) / max(1, len(asked) - 1))


def _row(panels: Sequence[Axes], name: str, bundles: Sequence[Bundle], has_budgets: bool) -> None:
    price, spent = panels
    before = f"{name}: " if name else ""
    _traces(price, before + COEF.title, bundles, _coefficient)
    if price.lines:
        price.set_yscale("log")
        low, high = price.get_ylim()
        price.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 20 * low else (1,)))
        price.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        price.yaxis.set_minor_formatter(NullFormatter())
    if not has_budgets:
        _traces(spent, KL.title, bundles, lambda curve: curve.smooth_kl)
        return
    _traces(spent, f"{before}KL / budget", bundles, _ratio)
    if spent.lines:
        spent.axhspan(1 - TOLERANCE, 1 + TOLERANCE, color=SHADE, alpha=0.3, lw=0, zorder=0)
        spent.axhline(1, color=SHADE, lw=1, zorder=0.5)
        spent.set_ylim(0, float(np.clip(spent.get_ylim()[1], 1.2, LARGEST_RATIO)))


def _traces(
    axes: Axes, title: str, bundles: Sequence[Bundle], read: Callable[[TrialCurve], np.ndarray]
) -> None:
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02)
    for bundle in filter(lambda bundle: bundle.curves, bundles):
        colour, dashes = bundle.look
        lines = {(c.trial, c.seed): _known(c.position, read(c)) for c in bundle.curves}
        # One line with breaks: a hundred lines take far longer to draw.
        x, y = (np.concatenate([np.append(line[axis], np.nan) for line in lines.values()]) for axis in (0, 1))
        if not np.isfinite(x).any():
            continue
        axes.plot(x, y, color=colour, lw=0.7, alpha=0.35, rasterized=True)
        whole = [lines[c.trial, c.seed] for c in bundle.curves if c.is_complete]
        if ended := [line for line in whole if len(line[0])]:
            mean = band_by_step([steps for steps, _ in ended], [values for _, values in ended])
            axes.plot(mean.axis, mean.mean, color=colour, ls=dashes, lw=1.8, zorder=4)
    not_measured(axes, is_empty=not axes.lines)


def _known(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = np.isfinite(steps) & np.isfinite(values)
    return steps[kept], values[kept]


def _coefficient(curve: TrialCurve) -> np.ndarray:
    """What has no logarithm is left out."""
    values = curve.series("kl_coef")
    return np.where(values > 0, values, np.nan)


def _ratio(curve: TrialCurve) -> np.ndarray:
    return curve.smooth_kl / (curve.budget or np.nan)


def _held(ends: Sequence[TrialEnd]) -> str:
    """How many trials held their budget, and which did not."""
    missed = [f"{end.trial} seed {end.seed} ({end.ratio:.2f})" for end in ends if not end.within]
    text = f"{len(ends) - len(missed)} of {len(ends)} trials are within {TOLERANCE:.0%} of their budget (shaded)."
    if not missed:
        return text
    more = f" and {len(missed) - MOST_NAMES} more, in the table" if len(missed) > MOST_NAMES else ""
    return f"{text} Outside, with reached over budget: {', '.join(missed[:MOST_NAMES])}{more}."
