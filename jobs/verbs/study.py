"""`goldilocks study` and `goldilocks demo`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from framework.analysis.curves import load_run
from framework.config import Config
from framework.report.comparison import Table as Comparison
from framework.report.comparison import comparison_tables
from jobs.study import StudyView, run_study
from jobs.verbs.show import bars, closing, console
from jobs.verbs.single import INTERRUPTED

CURVE_ROWS = 11
"""Rows of the table of curves."""
MOST_COLUMNS = 10
"""Of one table of the comparison, beside the variant."""
COLUMNS = {
    "proxy start": "proxy_start",
    "proxy end": "proxy_final",
    "gold start": "gold_start",
    "gold peak": "gold_peak",
    "at step": "gold_peak_step",
    "at nats": "kl_nats_at_gold_peak",
    "gold end": "gold_final",
    "nats end": "kl_nats_final",
}


def study(cfg: Config, out: Path, stop: Callable[[], bool], address: str | None) -> int:
    """Run a study, print its table and where the report is."""
    with bars() as shown:
        result = run_study(cfg, out, stop, StudyView(shown.stage, shown.run), address)
    if not result.finished:
        closing(out, f"the same command again: what is finished is kept (--out {out})")
        return INTERRUPTED
    if result.comparison is None:
        console.print(_curves(result.runs))
        console.print(_table(result.summary))
    else:
        for table in comparison_tables(result.comparison):
            for columns in _side_by_side(table):
                console.print(_against_baseline(table, columns))
            console.print(table.note)
    closing(result.report, f"open {result.report}")
    return 0


def _curves(runs: dict[str, dict[int, Path]]) -> Table:
    """Proxy and gold of every variant along the run, smoothed, averaged over seeds."""
    loaded = {name: [load_run(run) for run in seeds.values()] for name, seeds in runs.items()}
    table = Table(title="along the run: proxy and gold by step")
    table.add_column("step", justify="right")
    for name in loaded:
        for column in ("proxy", "gold", "nats"):
            table.add_column(f"{name} {column}", justify="right")
    steps = next(iter(loaded.values()))[0].steps
    for row in np.unique(np.linspace(0, len(steps) - 1, CURVE_ROWS).round().astype(int)):
        cells = [
            f"{np.mean([run.smoothed(key)[row] for run in seeds]):.2f}"
            for seeds in loaded.values()
            for key in ("proxy", "gold", "kl_nats")
        ]
        table.add_row(f"{steps[row]:.0f}", *cells)
    return table


def _table(summary: dict[str, Any]) -> Table:
    """One row per variant: means over seeds, with half the width of the 95% interval where it is known."""
    table = Table(
        title="proxy in reference standard deviations, gold in its own unit, KL in nats per sequence"
    )
    table.add_column("variant")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for variant, figures in summary["variants"].items():
        table.add_row(variant, *(_figure(figures, key) for key in COLUMNS.values()))
    return table


def _side_by_side(table: Comparison) -> list[list[int]]:
    """The columns that go into one printed table: all, or where that is too wide those of one condition."""
    columns = list(range(len(table.head)))
    if len(columns) <= MOST_COLUMNS:
        return [columns]
    conditions = dict.fromkeys(condition for _, condition in table.head)
    return [[i for i in columns if table.head[i][1] == condition] for condition in conditions]


def _against_baseline(table: Comparison, columns: list[int]) -> Table:
    """One row a variant; `*` marks what is clearly unlike the baseline."""
    shown = Table(title=table.title)
    shown.add_column("variant", no_wrap=True)
    for figure, condition in (table.head[i] for i in columns):
        shown.add_column(f"{condition}\n{figure}".strip(), justify="right", vertical="bottom")
    for variant, cells in table.rows:
        texts = [
            f"{cell.value}{f'±{cell.half}' if cell.half else ''}{'*' if cell.is_clear else ''}"
            for cell in (cells[i] for i in columns)
        ]
        shown.add_row(variant, *texts)
    return shown


def _figure(figures: dict[str, Any], key: str) -> str:
    value = figures[key]
    if value is None:
        return "-"
    digits = 0 if key.endswith("step") else 2
    interval = figures["intervals"][key]
    spread = f" ± {(interval[1] - interval[0]) / 2:.{digits}f}" if interval else ""
    return f"{value:.{digits}f}{spread}"
