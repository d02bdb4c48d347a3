"""The plots of a report, drawn once and kept as PNG (beside the report) and SVG (inside it)."""

import io
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from framework.analysis.curves import Band, Run, band_by_axis, band_by_step, moving_mean
from framework.analysis.summary import summarise

Runs = Mapping[str, Mapping[int, Run]]
"""Run by variant and seed."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's palette (2008), told apart with any common colour vision; dashes repeat the message."""
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.4)), (0, (7, 2, 2, 2)))
STAGE_COLOURS = {
    "rollout": "#0072B2",
    "reference": "#56B4E9",
    "reward": "#E69F00",
    "gold": "#F0E442",
    "update": "#D55E00",
    "driver": "#000000",
    "log": "#999999",
    "checkpoint": "#CC79A7",
}
PIXELS_PER_INCH = 130
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "goldilocks",
    "text.parse_math": False,
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Figure:
    """A drawn plot: its file stem, heading, what it shows in words, and both renderings."""

    name: str
    title: str
    alt: str
    caption: str
    png: bytes
    svg: bytes


@dataclass(frozen=True)
class Quantity:
    """Something plotted: its title with units, and how to read it off a run."""

    title: str
    read: Callable[[Run], np.ndarray]
    marks_peak: bool = False


PROXY = Quantity("Proxy (reference s.d.)", lambda run: run.series("proxy"))
GOLD = Quantity("Gold (gold scorer's units)", lambda run: run.series("gold"), marks_peak=True)
GAP = Quantity("Gap: proxy − gold (step-0 s.d.)", lambda run: run.gap())
DISAGREEMENT = Quantity("Disagreement (reference s.d.)", lambda run: run.series("disagreement"))
KL = Quantity("KL to the initial policy (nats/sequence)", lambda run: run.series("kl_nats"))
COEF = Quantity("KL coefficient (reward per nat)", lambda run: run.series("kl_coef"))
LENGTH = Quantity("Response length (tokens)", lambda run: run.series("response_tokens"))
ENDED = Quantity("Share of responses that end", lambda run: run.series("ended"))

BY_STEP = "step"
BY_SQRT_KL = "sqrt(KL)"


def draw_all(runs: Runs) -> list[Figure]:
    """Every plot of a report, in reading order."""
    reading = (
        "Thin lines are seeds, the thick line their mean, the band its pointwise 95% t interval."
        if _several_seeds(runs)
        else "Dots are single steps, the line their moving mean."
    )
    ring = " The ring marks the highest point of each drawn line."
    estimator = " KL is the k1 estimate per sequence."
    axis = ring + (
        " Variants are compared at equal distance from the initial policy." if len(runs) > 1 else ""
    )
    outcome = [PROXY, GOLD, GAP]
    figures = [
        _curves(runs, outcome, BY_STEP, "by_step", "Proxy, gold and their gap, step by step", reading + ring),
        _curves(runs, outcome, BY_SQRT_KL, "by_sqrt_kl", "The same against √KL", reading + axis),
        _curves(runs, [KL, COEF], BY_STEP, "kl", "KL spent, and its price", reading + estimator),
        _disagreement(runs, reading),
        _curves(runs, [LENGTH, ENDED], BY_STEP, "length", "Response length", reading),
    ]
    if any(run.timings for seeds in runs.values() for run in seeds.values()):
        figures.append(_time(runs))
    return figures


def _curves(
    runs: Runs, quantities: list[Quantity], against: str, name: str, title: str, caption: str
) -> Figure:
    with _canvas(len(quantities)) as (canvas, panels):
        for axes, quantity in zip(panels, quantities, strict=True):
            _panel(axes, runs, quantity, against)
        _legend(canvas, runs)
        shown = ", ".join(quantity.title for quantity in quantities)
        return _rendered(
            canvas, name, title, f"Line plots against {against}: {shown}. {_ends(runs)}", caption
        )


def _disagreement(runs: Runs, reading: str) -> Figure:
    with _canvas(2) as (canvas, panels):
        _panel(panels[0], runs, DISAGREEMENT, BY_STEP)
        _panel(panels[1], runs, DISAGREEMENT, BY_SQRT_KL)
        _legend(canvas, runs)
        alt = f"Ensemble disagreement for {', '.join(runs)}, against step and against the square root of KL."
        caption = f"{reading} A single head cannot disagree with itself and stays at zero."
        return _rendered(canvas, "disagreement", "Ensemble disagreement", alt, caption)


def _panel(axes: Axes, runs: Runs, quantity: Quantity, against: str) -> None:
    axes.set_title(quantity.title)
    axes.set_xlabel("step" if against == BY_STEP else "√KL to the initial policy (√nats per sequence)")
    axes.margins(x=0.02)
    if against == BY_STEP:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawn = False
    for position, seeds in enumerate(runs.values()):
        colour, dashes = _look(position)
        positions = [run.steps if against == BY_STEP else run.sqrt_kl for run in seeds.values()]
        raw = [quantity.read(run) for run in seeds.values()]
        smooth = [moving_mean(values) for values in raw]
        if not any(np.isfinite(values).any() for values in raw):
            continue
        drawn = True
        if len(seeds) == 1:
            axes.plot(positions[0], raw[0], "o", ms=3.2, color=colour, alpha=0.35, mew=0)
            line = _single(positions[0], smooth[0])
        else:
            for x, y in zip(positions, smooth, strict=True):
                kept = np.isfinite(y)
                axes.plot(x[kept], y[kept], color=colour, lw=0.7, alpha=0.28)
            line = band_by_step(positions, smooth) if against == BY_STEP else band_by_axis(positions, smooth)
            axes.fill_between(line.axis, line.low, line.high, color=colour, alpha=0.16, lw=0)
        axes.plot(line.axis, line.mean, color=colour, ls=dashes, lw=2.1)
        if quantity.marks_peak and len(line.mean):
            top = int(line.mean.argmax())
            axes.plot(line.axis[top], line.mean[top], "o", ms=7.5, mfc="white", mec=colour, mew=1.8)
    if drawn and against == BY_SQRT_KL:
        axes.set_xlim(left=0)
    if not drawn:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="#666666")
        axes.set_xticks([])
        axes.set_yticks([])


def _single(positions: np.ndarray, smooth: np.ndarray) -> Band:
    """The smoothed line of one seed, in step order, without a band."""
    kept = np.isfinite(smooth) & np.isfinite(positions)
    none = np.full(int(kept.sum()), math.nan)
    return Band(positions[kept], smooth[kept], none, none, 1)


def _time(runs: Runs) -> Figure:
    """Mean seconds a step per stage, one stacked bar a variant, with the wall-clock as a tick."""
    rows = {variant: _seconds_a_step(seeds) for variant, seeds in runs.items()}
    with _canvas(1, height=1.5 + 0.5 * len(rows)) as (canvas, panels):
        _stack(panels[0], rows)
        handles, labels = panels[0].get_legend_handles_labels()
        canvas.legend(
            handles, labels, loc="outside lower center", ncols=9, handlelength=1.1, markerscale=0.45
        )
        parts = (
            f"{variant}: " + ", ".join(f"{name} {seconds:.3f}" for name, seconds in per_stage.items())
            for variant, (per_stage, _) in rows.items()
        )
        caption = (
            "Mean over steps and seeds. Stages that run at the same time are each counted in full, so"
            " a bar may reach past the wall-clock tick; driver is time in which no role computes."
        )
        alt = "Stacked bars of mean seconds per step by stage. " + "; ".join(parts) + "."
        return _rendered(canvas, "time", "Where the time went", alt, caption)


def _stack(axes: Axes, rows: Mapping[str, tuple[dict[str, float], float]]) -> None:
    named = dict.fromkeys([*STAGE_COLOURS, *(name for per_stage, _ in rows.values() for name in per_stage)])
    lefts = np.zeros(len(rows))
    for position, name in enumerate(named):
        widths = np.array([per_stage.get(name, 0.0) for per_stage, _ in rows.values()])
        if not widths.any():
            continue
        colour = STAGE_COLOURS.get(name, COLOURS[position % len(COLOURS)])
        axes.barh(list(rows), widths, left=lefts, color=colour, label=name, height=0.6, ec="white", lw=0.6)
        lefts = lefts + widths
    walls = [wall for _, wall in rows.values()]
    axes.plot(walls, range(len(rows)), "|", color="#111111", ms=26, mew=1.6, label="wall-clock")
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds per step")
    axes.grid(axis="y", visible=False)


def _seconds_a_step(seeds: Mapping[int, Run]) -> tuple[dict[str, float], float]:
    """Mean seconds a step per stage, and of the step as a whole."""
    timings = [record for run in seeds.values() for record in run.timings]
    totals: dict[str, float] = {}
    for record in timings:
        for name, seconds in (record.get("stage_seconds") or {}).items():
            totals[name] = totals.get(name, 0.0) + seconds
    count = max(1, len(timings))
    wall = sum(record.get("seconds") or 0.0 for record in timings) / count
    return {name: total / count for name, total in totals.items()}, wall


def _ends(runs: Runs) -> str:
    """Where each variant began, peaked and ended, for those who cannot see the lines."""
    parts = []
    for variant, seeds in runs.items():
        first = summarise(next(iter(seeds.values())))
        text = f"{variant}: proxy {_plain(first['proxy_start'])} to {_plain(first['proxy_final'])}"
        if first["gold_peak"] is not None:
            text += f", gold {_plain(first['gold_start'])}, peak {_plain(first['gold_peak'])}"
            text += f" at step {first['gold_peak_step']}, end {_plain(first['gold_final'])}"
        parts.append(text)
    which = " (first seed of each)" if _several_seeds(runs) else ""
    return f"In numbers{which}: {'; '.join(parts)}."


def _plain(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _look(position: int) -> tuple[str, Any]:
    """Colour and dash pattern of the variant in this place."""
    return COLOURS[position % len(COLOURS)], DASHES[position % len(DASHES)]


def _several_seeds(runs: Runs) -> bool:
    return any(len(seeds) > 1 for seeds in runs.values())


def _legend(canvas: Canvas, runs: Runs) -> None:
    if len(runs) < 2:
        return
    looks = [_look(position) for position in range(len(runs))]
    handles = [Line2D([], [], color=colour, ls=dashes, lw=2.1) for colour, dashes in looks]
    canvas.legend(handles, list(runs), loc="outside upper left", ncols=min(6, len(runs)), handlelength=3)


@contextmanager
def _canvas(num_panels: int, height: float = 3.5, rows: int = 1) -> Iterator[tuple[Canvas, list[Axes]]]:
    """A canvas and its panels, row by row; so many panels a row, so many inches high."""
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(11.5, height), layout="constrained")
        grid = canvas.subplots(rows, num_panels, squeeze=False)
        yield canvas, list(grid.ravel())


def _rendered(canvas: Canvas, name: str, title: str, alt: str, caption: str) -> Figure:
    png, svg = io.BytesIO(), io.BytesIO()
    if (engine := canvas.get_layout_engine()) is not None:
        engine.execute(canvas)
    canvas.set_layout_engine("none")  # laid out once, not again for each format
    canvas.savefig(png, format="png", dpi=PIXELS_PER_INCH)
    # The resolution is that of what is drawn as pixels: tens of thousands of points would be a huge file.
    canvas.savefig(svg, format="svg", metadata={"Date": None}, dpi=PIXELS_PER_INCH)
    return Figure(name, title, alt, caption, png.getvalue(), svg.getvalue())
