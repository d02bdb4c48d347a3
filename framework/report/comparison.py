"""A study against its baseline, as tables, sentences and plots."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from framework.analysis.comparison import Comparison, Estimate, Pair
from framework.analysis.curves import Run, band_by_axis
from framework.report.figures import COLOURS, DASHES, Figure, _canvas, _rendered
from framework.report.reading import Paragraph, number

Runs = Mapping[str, Mapping[int, Run]]
Layout = Mapping[str, Pair]
Figures = Mapping[Pair, Mapping[str, Estimate]]


@dataclass(frozen=True)
class Column:
    """A figure of a table."""

    key: str
    title: str
    show: Callable[[float | None], str] = number
    nothing: float | None = None
    """What it is where variant and baseline are alike; a figure whose interval leaves that out is marked."""


@dataclass(frozen=True)
class Cell:
    """An estimate as text."""

    value: str
    bounds: str
    """`[low, high]`; empty without an interval."""
    half: str
    """Half the interval's width; empty without one."""
    is_clear: bool
    """Clearly unlike the baseline."""


@dataclass(frozen=True)
class Table:
    """One row a variant, the columns of every condition side by side."""

    title: str
    note: str
    head: list[tuple[str, str]]
    """Figure and condition."""
    rows: list[tuple[str, list[Cell]]]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}".replace("-", "−")


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


PPO = (
    Column("gold_final", "gold, end"),
    Column("gold_final_difference", "less baseline", nothing=0.0),
    Column("gold_peak", "gold, peak"),
    Column("gold_peak_difference", "less baseline", nothing=0.0),
    Column("win_rate", "wins, %", _percent, nothing=0.5),
)
BEST_OF_N = (
    Column("gold_final", "gold, largest n"),
    Column("gold_final_difference", "less baseline", nothing=0.0),
    Column("gold_peak", "gold, peak"),
    Column("n_at_gold_peak", "at n", _count),
    Column("kl_nats_at_gold_peak", "at nats"),
    Column("win_rate", "wins, %", _percent, nothing=0.5),
    Column("gap_final", "gap, largest n"),
)
SPREAD = (
    Column("gap_final", "gap, end"),
    Column("disagreement_start", "disagreement, start"),
    Column("disagreement_final", "end"),
    Column("disagreement_ratio", "ratio"),
    Column("head_correlation_start", "head correlation, start"),
    Column("head_correlation_final", "end"),
    Column("kl_nats_final", "nats, end"),
    Column("kl_nats_at_gold_peak", "nats, gold peak"),
    Column("accuracy", "accuracy, %", _percent),
)


def comparison_tables(comparison: Comparison) -> list[Table]:
    """PPO, best-of-n where there is one, and what happened to the proxy meanwhile."""
    seeds = max((e.num_seeds for figures in comparison.ppo.values() for e in figures.values()), default=0)
    note = (
        f"Against {comparison.baseline} of the same condition and seed. Gold in its own units; wins are the share of"
        f" pairs of {'{}'} that have more gold than the baseline’s, a tie counting one half."
    )
    intervals = (
        f" Means over {seeds} seeds with 95% t intervals. Marked: differences whose interval leaves zero out, and wins"
        " whose interval leaves 50% out. The intervals are not widened for the number of comparisons: of twenty without"
        " any effect, one is marked by chance."
        if seeds > 1
        else " One seed: no intervals."
    )
    samples = "samples for one prompt, over the last gold-scored steps,"
    choices = "choices for one prompt, at the largest n from the same pool,"
    spread = (
        "Gap: standardised proxy minus standardised gold. Disagreement: the deviation over heads, in reference"
        " standard deviations, on samples of the start policy and of the policy at the end. Head correlation: the mean"
        " over pairs of heads, on the rollouts of the first and of the last steps. KL in nats per sequence. Accuracy:"
        " of the mean reward on held-out pairs, by gold."
    )
    tables = [_table("By PPO", note.format(samples) + intervals, comparison, comparison.ppo, PPO)]
    if comparison.best_of_n:
        text = note.format(choices) + intervals
        tables.append(_table("By best-of-n", text, comparison, comparison.best_of_n, BEST_OF_N))
    return [*tables, _table("The proxy under PPO", spread, comparison, comparison.ppo, SPREAD)]


def read_comparison(comparison: Comparison) -> list[Paragraph]:
    """For each condition and method: who ends highest, and who differs clearly from the baseline."""
    methods = [("PPO", "at the end", comparison.ppo)]
    if comparison.best_of_n:
        methods.append(("best-of-n", "at the largest n", comparison.best_of_n))
    return [
        Paragraph(f"{condition}, {method}".removeprefix(", "), text)
        for condition in comparison.conditions
        for method, when, figures in methods
        if (text := _sentences(comparison, figures, condition, when))
    ]


def draw_comparison(comparison: Comparison, runs: Runs, layout: Layout) -> list[Figure]:
    """Gold at the end of every variant, then gold against KL by PPO and by best-of-n, a figure a condition."""
    return [
        _draw_ends(comparison),
        *(_draw_curves(comparison, runs, layout, condition) for condition in comparison.conditions),
    ]


def _table(
    title: str, note: str, comparison: Comparison, figures: Figures, columns: tuple[Column, ...]
) -> Table:
    rows = []
    for variant in comparison.variants:
        cells = [
            _cell(figures.get((condition, variant), {}).get(column.key), column)
            for condition in comparison.conditions
            for column in columns
        ]
        rows.append((variant, cells))
    head = [(column.title, condition) for condition in comparison.conditions for column in columns]
    return Table(title, note, head, rows)


def _cell(estimate: Estimate | None, column: Column) -> Cell:
    if estimate is None or estimate.interval is None:
        return Cell(column.show(estimate.mean if estimate else None), "", "", False)
    low, high = estimate.interval
    bounds = f"[{column.show(low)}, {column.show(high)}]"
    is_clear = column.nothing is not None and not low <= column.nothing <= high
    return Cell(column.show(estimate.mean), bounds, column.show((high - low) / 2), is_clear)


def _sentences(comparison: Comparison, figures: Figures, condition: str, when: str) -> str:
    own = {variant: figures.get((condition, variant), {}) for variant in comparison.variants}
    ends = {v: f["gold_final"].mean for v, f in own.items() if f and f["gold_final"].mean is not None}
    known = {variant: mean for variant, mean in ends.items() if mean is not None}
    if len(known) < 2:
        return ""
    best, worst = max(known, key=lambda v: known[v]), min(known, key=lambda v: known[v])
    text = (
        f"gold {when} is highest under {best} ({number(known[best])}) and lowest under {worst}"
        f" ({number(known[worst])}). "
    )
    differences = {v: f["gold_final_difference"] for v, f in own.items() if f and v != comparison.baseline}
    decided = {v: d for v, d in differences.items() if d.interval is not None}
    if not decided:
        return text + "One seed, so the differences may be chance."
    higher = [v for v, d in decided.items() if d.sign > 0]
    lower = [v for v, d in decided.items() if d.sign < 0]
    parts = [
        f"{len(names)} clearly {how} ({', '.join(names)})"
        for how, names in (("higher", higher), ("lower", lower))
        if names
    ]
    rest = len(decided) - len(higher) - len(lower)
    parts += [f"{rest} not clearly different"] if rest else []
    return text + f"Against {comparison.baseline}, of {len(decided)} other variants: {', '.join(parts)}."


def _draw_ends(comparison: Comparison) -> Figure:
    """A dot and its interval for each variant, the baseline's mean as a line."""
    methods = [("PPO", "o", COLOURS[0], comparison.ppo), ("best-of-n", "D", COLOURS[1], comparison.best_of_n)]
    drawn = [method for method in methods if method[3]]
    with _canvas(len(comparison.conditions), height=1.6 + 0.3 * len(comparison.variants)) as (canvas, panels):
        for axes, condition in zip(panels, comparison.conditions, strict=True):
            for position, (_, marker, colour, figures) in enumerate(drawn):
                _dots(axes, comparison, figures, condition, marker, colour, 0.32 * position)
            axes.set_title(condition)
            axes.set_yticks(range(len(comparison.variants)), comparison.variants)
            axes.set_ylim(len(comparison.variants) - 0.4, -0.5)
            axes.set_xlabel("gold (gold scorer's units)")
        handles = [
            Line2D([], [], color=colour, marker=marker, mfc="white" if marker == "D" else colour)
            for _, marker, colour, _ in drawn
        ]
        canvas.legend(handles, [name for name, *_ in drawn], loc="outside upper left", ncols=2)
        caption = (
            "Dots are means over seeds, bars 95% t intervals of the mean; the line is the mean of"
            f" {comparison.baseline}. PPO at the last steps, best-of-n at the largest n. Seeds are shared, so a paired"
            " difference can be clear where two bars overlap."
        )
        alt = f"Gold at the end for {', '.join(comparison.variants)}; the numbers are in the tables above."
        return _rendered(canvas, "comparison", "Gold at the end", alt, caption)


def _dots(
    axes: Axes,
    comparison: Comparison,
    figures: Figures,
    condition: str,
    marker: str,
    colour: str,
    shift: float,
) -> None:
    for row, variant in enumerate(comparison.variants):
        estimate = figures.get((condition, variant), {}).get("gold_final")
        if estimate is None or estimate.mean is None:
            continue
        if variant == comparison.baseline:
            axes.axvline(estimate.mean, color=colour, lw=1, alpha=0.7)
        if estimate.interval:
            axes.plot(estimate.interval, [row + shift] * 2, color=colour, lw=1.6)
        face = "white" if marker == "D" else colour
        axes.plot(estimate.mean, row + shift, marker, color=colour, mfc=face, ms=5.5)


def _draw_curves(comparison: Comparison, runs: Runs, layout: Layout, condition: str) -> Figure:
    names = [name for name, (own, _) in layout.items() if own == condition and runs.get(name)]
    looks = _looks({name: next(iter(runs[name].values())) for name in names})
    titles = ["Gold by PPO", *(["Gold by best-of-n"] if comparison.curves else [])]
    with _canvas(len(titles), height=4.6) as (canvas, panels):
        for name in names:
            seeds, (colour, dashes) = runs[name].values(), looks[name]
            curves = [run.smoothed("gold") for run in seeds]
            if all(np.isfinite(curve).any() for curve in curves):
                line = band_by_axis([run.sqrt_kl for run in seeds], curves)
                panels[0].plot(line.axis, line.mean, color=colour, ls=dashes, lw=1.6)
            points = comparison.curves.get(layout[name], [])
            position, gold = [p["kl_nats"] ** 0.5 for p in points], [p["gold"] for p in points]
            panels[-1].plot(position, gold, color=colour, ls=dashes, lw=1.6)
        for axes, title in zip(panels, titles, strict=True):
            axes.set_title(title)
            axes.set_xlabel("√KL to the initial policy (√nats per sequence)")
            axes.set_xlim(left=0)
        for axes in panels[1:]:
            axes.sharey(panels[0])
        panels[0].autoscale_view()
        handles = [Line2D([], [], color=colour, ls=dashes, lw=1.8) for colour, dashes in looks.values()]
        labels = [layout[name][1] for name in names]
        canvas.legend(handles, labels, loc="outside upper left", ncols=5, handlelength=3)
        caption = (
            "Means over seeds. One colour is one kind of reward model, one pattern of dashes one aggregation. By PPO"
            " KL is the k1 estimate; by best-of-n it is log n − (n − 1)/n."
        )
        alt = f"{' and '.join(titles)} against the square root of KL for {', '.join(labels)}."
        stem = "_".join(filter(None, ("gold_by_sqrt_kl", condition)))
        return _rendered(
            canvas, stem, " · ".join(filter(None, ("Gold against √KL", condition))), alt, caption
        )


def _looks(examples: Mapping[str, Run]) -> dict[str, tuple[str, Any]]:
    """A colour for each reward model that is fitted, a dash pattern for each aggregation."""
    models = {
        name: json.dumps(run.config.get("fit_reward"), sort_keys=True) for name, run in examples.items()
    }
    rewards = {
        name: json.dumps(run.config.get("aggregation"), sort_keys=True) for name, run in examples.items()
    }
    colours, dashes = list(dict.fromkeys(models.values())), list(dict.fromkeys(rewards.values()))
    return {
        name: (
            COLOURS[colours.index(models[name]) % len(COLOURS)],
            DASHES[dashes.index(rewards[name]) % len(DASHES)],
        )
        for name in examples
    }
