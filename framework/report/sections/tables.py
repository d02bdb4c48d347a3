"""The sections that are text and tables: what was found and every run, what warnings were worth, where it came from."""

import math
from itertools import groupby

import yaml

from framework.analysis.alarms import CONTROL, SIGNALS
from framework.analysis.experiment import Experiment
from framework.analysis.over_seeds import Estimate
from framework.analysis.run_folder import load_run, told
from framework.analysis.table import Curve
from framework.measure import outcome_of
from framework.report.drawn import runs_of
from framework.report.findings import headline, paragraphs
from framework.report.sections import Section

FIGURES = (
    "proxy_start", "proxy_end", "gold_start", "gold_peak", "gold_end", "share_lost", "gold_peak_at",
    "kl_nats_at_gold_peak", "kl_nats_end", "gap_end", "ended_start", "ended_end",
)  # fmt: skip


def overview(experiment: Experiment) -> Section:
    """The headline, a paragraph a curve, and the numbers of each run, over its seeds and by itself."""
    names = list(experiment.curves)

    def place(curve: Curve) -> tuple[int, float, str, int]:
        return names.index(curve.curve), curve.budget or math.inf, curve.run, curve.seed

    outcomes = [(curve, outcome_of(curve)) for curve in sorted(runs_of(experiment), key=place)]
    rows = []
    for run, group in groupby(outcomes, key=lambda each: each[0].run):
        every = list(group)
        own = [outcome for curve, outcome in every if curve.is_complete] or [outcome for _, outcome in every]
        figures = {key: Estimate.of([getattr(outcome, key) for outcome in own]) for key in FIGURES}
        judged = [outcome.turned_over for outcome in own if outcome.gold_peak_se is not None]
        rows.append((run, len(own), figures, f"{sum(judged)} of {len(judged)}" if judged else "–"))
    values = {
        "headline": headline(experiment),
        "paragraphs": paragraphs(experiment),
        "rows": rows,
        "runs": outcomes if len(outcomes) > len(rows) else [],
        "unfinished": [r for r in experiment.records if r.status in {"failed", "unfinished"}],
    }
    return Section("overview", "The numbers", values=values)


def warnings(experiment: Experiment) -> Section | None:
    """A row for each curve and signal, the control among them; None where there are no runs."""
    meanings = {signal.name: signal.meaning for signal in SIGNALS}
    meanings[CONTROL.name] = f"{CONTROL.meaning} (control)"
    leads = [lead for lead in experiment.leads if lead.num_turned + lead.num_unturned]
    values = {"leads": leads, "meanings": meanings}
    return Section("warnings", "Warnings that need no gold", values=values) if runs_of(experiment) else None


def provenance(experiment: Experiment) -> Section:
    """Fingerprint and parents of every run, and the configuration of the first run of each curve."""
    runs = [(record, load_run(record.folder)) for record in experiment.records if record.folder is not None]
    configs = {}
    for record, run in runs:
        if record.curve not in configs:
            config = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
            configs[record.curve] = f"{record.run}, seed {record.seed}", config
    versions = sorted({str(run.manifest.get("code_version", "unknown")) for _, run in runs})
    missing = [(f"{record.run}, seed {record.seed}", told(run.gaps)) for record, run in runs if run.gaps]
    values = {"runs": runs, "configs": configs.values(), "versions": versions, "gaps": missing}
    return Section("provenance", "Where it came from", values=values)
