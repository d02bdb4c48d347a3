"""The report as one HTML file that needs nothing else: no network, no script library, readable without JS."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from framework.analysis.alarms import alarm_leads
from framework.analysis.comparison import Comparison
from framework.analysis.curves import Run, load_run
from framework.analysis.summary import summarise_runs
from framework.errors import UserError
from framework.report.comparison import Table, comparison_tables, draw_comparison, read_comparison
from framework.report.figures import COLOURS, Figure, draw_all
from framework.report.page import (
    config_as_yaml,
    escaped,
    html_figure,
    html_paragraph,
    html_table,
    plural,
    provenance_table,
    write_page,
)
from framework.report.reading import Paragraph, number, read_run, read_study, share_lost
from framework.report.sample_cards import phase_column
from framework.report.samples import Phase, sample_phases
from framework.report.sweep_tables import warning_table

Runs = Mapping[str, Mapping[int, Run]]

ROWS = (
    ("proxy_start", "Proxy, start", "reference s.d."),
    ("proxy_final", "Proxy, end", "reference s.d."),
    ("gold_start", "Gold, start", "gold units"),
    ("gold_peak", "Gold, peak", "gold units"),
    ("gold_final", "Gold, end", "gold units"),
    ("share_lost", "Share of gold's gain lost", "after the peak"),
    ("gold_peak_step", "Step of the peak", "updates"),
    ("kl_nats_at_gold_peak", "KL at the peak", "nats per sequence"),
    ("kl_nats_final", "KL, end", "nats per sequence"),
    ("tokens_per_second", "Speed", "generated tokens/s"),
    ("peak_rss_mb", "Peak memory of each role", "MB"),
)
MOST_LINES = len(COLOURS)
"""Variants that one plot can tell apart; a study of more is drawn condition by condition, and one seed is shown."""


def write_run_report(run: Path, out: Path | None = None) -> Path:
    """The path of the report on one run folder, written with its PNGs beside it.

    `out` is the file (`.html`) or the folder to write to; without it, the run folder.
    """
    loaded = load_run(run)
    name = str(loaded.manifest.get("name") or loaded.folder.resolve().name)
    seed = loaded.config.get("seed")
    runs = {name: {seed if isinstance(seed, int) else 0: loaded}}
    return _write(out or run, f"Run: {name}", runs, read_run(loaded))


def write_study_report(
    study: Path,
    runs: Mapping[str, Mapping[int, Path]],
    comparison: Comparison | None = None,
    layout: Mapping[str, tuple[str, str]] | None = None,
) -> Path:
    """The path of the report on a study, `{variant: {seed: run folder}}`, written into the study folder.

    Args:
        comparison: of a study with a baseline.
        layout: condition and variant of each run name; needed with a comparison.
    """
    if not any(runs.values()):
        raise UserError(f"{study}: no run to report on; run the study's train stages first")
    read = {
        variant: {seed: load_run(folder) for seed, folder in seeds.items()}
        for variant, seeds in runs.items()
        if seeds
    }
    title = f"Study: {Path(study).resolve().name}"
    if comparison is None or layout is None:
        return _write(study, title, read, read_study(read))
    drawn = draw_comparison(comparison, read, layout)
    return _write(study, title, read, read_comparison(comparison), comparison_tables(comparison), drawn)


def _write(
    out: Path,
    title: str,
    runs: Runs,
    paragraphs: list[Paragraph],
    tables: Sequence[Table] = (),
    drawn: Sequence[Figure] = (),
) -> Path:
    out = Path(out)
    target = out if out.suffix == ".html" else out / "report.html"
    figures = [*drawn, *(draw_all(runs) if len(runs) <= MOST_LINES or not drawn else [])]
    return write_page(target, _page(title, runs, paragraphs, figures, tables), figures)


def _page(
    title: str, runs: Runs, paragraphs: list[Paragraph], figures: list[Figure], tables: Sequence[Table]
) -> str:
    template = Template((Path(__file__).parent / "template.html").read_text(encoding="utf-8"))
    seeds = sorted({seed for runs_of in runs.values() for seed in runs_of})
    kicker = ["Goldilocks report"]
    kicker += [plural(len(runs), "variant")] if len(runs) > 1 else []
    kicker += [f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"]
    return template.substitute(
        title=escaped(title),
        kicker=" · ".join(kicker),
        reading="\n".join(html_paragraph(part) for part in paragraphs),
        comparison=_comparison(tables),
        numbers=_numbers(runs),
        figures="\n".join(html_figure(drawn) for drawn in figures),
        warnings=warning_table(alarm_leads({name: list(seeds.values()) for name, seeds in runs.items()})),
        samples=_samples(runs if len(runs) <= MOST_LINES else _first_seeds(runs)),
        provenance=_provenance(runs),
    )


def _numbers(runs: Runs) -> str:
    summaries = summarise_runs(runs)["variants"]
    body = []
    for key, label, unit in ROWS:
        cells = "".join(_cell(key, runs[variant], summaries[variant]) for variant in runs)
        body.append(f'<tr><th scope="row">{escaped(label)}<small>{escaped(unit)}</small></th>{cells}</tr>')
    head = "".join(
        f'<th scope="col">{escaped(variant)}<small>{plural(len(seeds), "seed")}</small></th>'
        for variant, seeds in runs.items()
    )
    several = any(len(seeds) > 1 for seeds in runs.values())
    note = "Start, peak and end are read off a centred moving mean."
    note += (
        " Means over seeds, with 95% t intervals in brackets; the peak and the share lost are found in each"
        " seed first, then averaged."
        if several
        else " One seed: no intervals."
    )
    table = html_table(f'<th scope="col">Number</th>{head}', body, "wide-columns")
    return f'<p class="note">{note}</p>{table}' + (_seed_table(runs) if several else "")


def _first_seeds(runs: Runs) -> Runs:
    return {name: dict(list(seeds.items())[:1]) for name, seeds in runs.items()}


def _comparison(tables: Sequence[Table]) -> str:
    if not tables:
        return ""
    shown = "".join(_comparison_table(table) for table in tables)
    return f'<section aria-labelledby="comparison"><h2 id="comparison">The comparison</h2>{shown}</section>'


def _comparison_table(table: Table) -> str:
    head = '<th scope="col">Variant</th>' + "".join(
        f'<th scope="col">{escaped(figure)}<small>{escaped(condition)}</small></th>'
        for figure, condition in table.head
    )
    rows = []
    for variant, cells in table.rows:
        shown = "".join(
            f"<td>{'<strong>' if cell.is_clear else ''}{escaped(cell.value)}{'</strong>' if cell.is_clear else ''}"
            f"<small>{escaped(cell.bounds)}</small></td>"
            for cell in cells
        )
        rows.append(f'<tr><th scope="row">{escaped(variant)}</th>{shown}</tr>')
    return f'<h3>{escaped(table.title)}</h3><p class="note">{escaped(table.note)}</p>{html_table(head, rows, "comparison")}'


def _cell(key: str, seeds: Mapping[int, Run], summary: Mapping[str, Any]) -> str:
    bounds = ""
    if key == "share_lost":
        mean, interval, count = share_lost(seeds)
        value = "–" if mean is None else _percent(mean)
        bounds = f"[{_percent(interval[0])}, {_percent(interval[1])}]" if interval else ""
        if 0 < count < len(seeds):
            bounds += f" {count} of {len(seeds)} had a gain"
    elif key == "peak_rss_mb":
        roles = "<br>".join(f"{escaped(role)} {size:,.0f}" for role, size in summary[key].items())
        return f'<td class="roles">{roles or "–"}</td>'
    else:
        is_step = key == "gold_peak_step" and summary[key] is not None
        value = f"{summary[key]:.0f}" if is_step else number(summary[key])
        interval = summary["intervals"][key]
        bounds = f"[{number(interval[0])}, {number(interval[1])}]" if interval else ""
    return f"<td>{escaped(value)}" + (f"<small>{escaped(bounds)}</small>" if bounds else "") + "</td>"


def _seed_table(runs: Runs) -> str:
    rows, shown = [], [row for row in ROWS if row[0] != "peak_rss_mb"]
    for variant, seeds in runs.items():
        for seed, run in seeds.items():
            summary = summarise_runs({variant: {seed: run}})["variants"][variant]
            cells = "".join(_cell(key, {seed: run}, summary) for key, _, _ in shown)
            rows.append(f'<tr><th scope="row">{escaped(variant)}, seed {seed}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{escaped(label)}</th>' for label in ("Run", *(row[1] for row in shown)))
    return f"<details><summary>Every seed by itself</summary>{html_table(head, rows, 'seeds')}</details>"


def _samples(runs: Runs) -> str:
    phases = {(v, seed): sample_phases(run) for v, seeds in runs.items() for seed, run in seeds.items()}
    if not any(phases.values()):
        return "<p>No rollouts were kept, so there is nothing to read here.</p>"
    shown, opened = [], set()
    for (variant, seed), found in phases.items():
        is_first = variant not in opened
        opened.add(variant)
        shown.append(_run_samples(variant, seed, found, is_first))
    kept = {phase.name for found in phases.values() for phase in found}
    names = [name for name in ("start", "peak", "end") if name in kept]
    lead = (
        "Gold was not measured here, or did not vary at step 0, so there is no gap to rank by:"
        " these are the responses that the proxy rewards most."
    )
    if "peak" in names:
        lead = (
            "The responses whose proxy reward most exceeds their gold, each standardised on the step-0"
            " batch of the same run: at its start, at its gold peak and at its end. Last in each column,"
            " a typical one."
        )
    seeds = dict.fromkeys(str(seed) for _, seed in phases)
    options = _options("variant", "Variant", runs) + _options("seed", "Seed", seeds)
    chooser = options + _options("phase", "Moment", ["all", *names])
    return (
        f'<p>{lead}</p><div class="chooser" hidden>{chooser}<span class="none note" role="status" hidden>'
        f"No samples were kept for this choice.</span></div>{''.join(shown)}"
    )


def _options(name: str, label: str, values: Iterable[str]) -> str:
    options = "".join(f'<option value="{escaped(value)}">{escaped(value)}</option>' for value in values)
    return f'<label>{label} <select name="{name}">{options}</select></label>'


def _run_samples(variant: str, seed: int, phases: list[Phase], is_open: bool) -> str:
    columns = "".join(phase_column(phase) for phase in phases) or "<p>No rollouts were kept for this run.</p>"
    return (
        f'<details class="run" data-variant="{escaped(variant)}" data-seed="{seed}"'
        f"{' open' if is_open else ''}>"
        f'<summary>{escaped(variant)}, seed {seed}</summary><div class="phases">{columns}</div></details>'
    )


def _provenance(runs: Runs) -> str:
    return provenance_table((name, run.fingerprint, run.manifest) for name, run in _named(runs)) + "".join(
        config_as_yaml(name, run.config) for name, run in _named(_first_seeds(runs))
    )


def _named(runs: Runs) -> list[tuple[str, Run]]:
    return [
        (f"{variant}, seed {seed}", run) for variant, seeds in runs.items() for seed, run in seeds.items()
    ]


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("-", "−")
