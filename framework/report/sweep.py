"""The report of a sweep over KL budgets: one HTML file that needs nothing else, its plots as PNG beside it."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from framework.analysis.curves import load_run
from framework.analysis.sweep_analysis import MethodAnalysis, SweepAnalysis
from framework.analysis.sweep_columns import COMPLETE
from framework.analysis.sweep_table import SweepTable, TrialRecord
from framework.errors import UserError
from framework.report.figures import Figure
from framework.report.page import (
    escaped,
    fill_page,
    folded,
    html_figure,
    html_paragraph,
    plural,
    provenance_table,
    write_page,
)
from framework.report.sample_cards import phase_column
from framework.report.samples import sample_phases
from framework.report.sweep_figures import draw_beside_best_of_n, draw_ends, draw_frontier
from framework.report.sweep_reading import read_sweep
from framework.report.sweep_tables import budget_table, fit_table, loss_table, warning_table
from framework.report.sweep_traces import draw_reached, draw_traces
from framework.report.sweep_trials import recorded, trial_table

RESULTS = {
    "results.parquet": "every row: a step of a trial, or an n of best-of-n",
    "analysis.json": "every figure of this page",
    "trials.json": "what became of each trial",
}
CONFIG = "sweep.yaml"


def write_sweep_report(
    folder: Path, table: SweepTable, analysis: SweepAnalysis, records: Sequence[TrialRecord] = ()
) -> Path:
    """The path of the sweep's `report.html`, written into its folder with its plots as PNG beside it.

    Args:
        records: the trials, with their run folders and errors; without them, as with a table from elsewhere, the
            report has no samples and no provenance.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = Path(folder)
    drawn = [
        draw_frontier(table, analysis),
        draw_beside_best_of_n(table, analysis),
        draw_reached(analysis),
        draw_traces(table, analysis),
        draw_ends(analysis),
    ]
    figures = [figure for figure in drawn if figure is not None]
    return write_page(folder / "report.html", _page(folder, table, analysis, records, figures), figures)


def _page(
    folder: Path,
    table: SweepTable,
    analysis: SweepAnalysis,
    records: Sequence[TrialRecord],
    figures: Sequence[Figure],
) -> str:
    known = list(records) or recorded(table)
    seeds = len({record.seed for record in known})
    kicker = (plural(len(analysis.methods), "method"), plural(len(known), "trial"), plural(seeds, "seed"))
    paragraphs = read_sweep(analysis, Counter(record.status for record in known))
    shown = "\n".join(html_figure(figure) for figure in figures)
    if all(record.budget is None for record in known):
        shown += (
            "<p>No trial was given a KL budget, so there is no figure of budgets asked against reached.</p>"
        )
    return fill_page(
        "sweep.html",
        f"Sweep: {folder.resolve().name}",
        kicker=" · ".join(("Goldilocks report", *kicker)),
        reading="\n".join(html_paragraph(paragraph) for paragraph in paragraphs),
        figures=shown,
        budgets=budget_table(analysis),
        fits=fit_table(analysis),
        losses=loss_table(analysis) or "<p>Nothing was fitted, so no loss can be read off.</p>",
        warnings=warning_table([lead for method in analysis.methods.values() for lead in method.alarms]),
        trials=trial_table(table, analysis, records),
        samples=_samples(analysis, records),
        provenance=_provenance(folder, records),
    )


def _samples(analysis: SweepAnalysis, records: Sequence[TrialRecord]) -> str:
    shown: list[str] = []
    for method in analysis.methods.values():
        for record, why in _to_read(method, records):
            assert record.run is not None
            columns = "".join(phase_column(phase) for phase in sample_phases(load_run(record.run)))
            title = f"{method.method}, {why}, seed {record.seed}"
            is_open = " open" if not shown else ""
            shown.append(
                f"<details{is_open}><summary>{escaped(title)}</summary>"
                f'<div class="phases">{columns or "<p>No rollouts were kept for this run.</p>"}</div></details>'
            )
    if not shown:
        return "<p>There are no run folders with this table, so there is nothing to read here.</p>"
    lead = (
        "The responses whose proxy most exceeds their gold, each standardised on the step-0 batch of the same run; without"
        " gold, those that the proxy rewards most. Last in each column, a typical one."
    )
    return f"<p>{lead}</p>{''.join(shown)}"


def _to_read(method: MethodAnalysis, records: Sequence[TrialRecord]) -> list[tuple[TrialRecord, str]]:
    """The first seed's runs at the largest budget and at the recommended one; without budgets, the first run."""
    own = [r for r in records if r.method == method.method and r.run is not None and r.status in COMPLETE]
    if not own:
        return []
    largest = max(own, key=lambda record: (record.budget or 0.0, -record.seed))
    if largest.budget is None:
        return [(largest, "without a budget")]
    chosen = [(largest, f"largest budget, {largest.budget:g} nats")]
    if method.advice is None:
        return chosen
    if method.advice.budget == largest.budget:
        return [(largest, f"largest budget and the recommended one, {largest.budget:g} nats")]
    advised = [record for record in own if record.budget == method.advice.budget]
    return [*chosen, *((record, f"recommended budget, {record.budget:g} nats") for record in advised[:1])]


def _provenance(folder: Path, records: Sequence[TrialRecord]) -> str:
    links = "".join(
        f'<li><a href="{name}">{name}</a>: {what}</li>'
        for name, what in RESULTS.items()
        if (folder / name).is_file()
    )
    runs = [
        (f"{record.trial}, seed {record.seed}", *_identity(record.run))
        for record in records
        if record.run is not None
    ]
    versions = sorted(
        {str(manifest["code_version"]) for _, _, manifest in runs if "code_version" in manifest}
    )
    code = f"<p>Code version: {escaped(', '.join(versions))}.</p>" if versions else ""
    text = f"<ul>{links}</ul>" if links else ""
    text += code or "<p>No run folders came with this table, so their origin is not known here.</p>"
    if runs:
        text += folded("Fingerprint and parents of every trial", provenance_table(runs))
    config = folder / CONFIG
    if config.is_file():
        text += folded(f"Configuration of the sweep, {CONFIG}", f"<pre>{escaped(_read(config))}</pre>")
    return text


def _identity(run: Path) -> tuple[str, dict[str, Any]]:
    """Fingerprint and manifest of a run folder; the metrics, which are large, stay unread."""
    manifest = run / "manifest.json"
    try:
        found = json.loads(_read(manifest)) if manifest.is_file() else {}
    except json.JSONDecodeError as error:
        raise UserError(f"{manifest}: not JSON at line {error.lineno} ({error.msg})") from error
    return _read(run / "fingerprint.txt").strip(), found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
