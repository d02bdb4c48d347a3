"""The sections that are text and tables: what was found and every run, what warnings were worth, what the policy wrote at
every dot (those responses on which proxy and gold disagree most, and a typical one), and where all came from."""

import math
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from framework.analysis.alarms import CONTROL, SIGNALS
from framework.analysis.experiment import Experiment
from framework.analysis.over_seeds import Estimate
from framework.analysis.run_folder import Origin, load_run, read_origin, read_rollouts, rollout_steps, told
from framework.analysis.table import Curve
from framework.data.conversations import from_cell
from framework.measure import outcome_of
from framework.report.charts import Rows, Section
from framework.report.drawn import dot_rows
from framework.report.findings import headline, paragraphs
from framework.report.text import number, plural

COLUMNS = ("row", "prompt", "response", "tokens", "ended", "proxy", "gold", "kl_nats")
MOST_CHARACTERS = 2_400_000  # of all samples together: they share what room there is
SHORTEST, LONGEST = 160, 1500  # characters of a prompt, or of a response, that are shown
MOST_RUNS = 24  # runs whose last samples are read without a script
MOST_SAMPLES = 2  # of a step, a typical one left out


def overview(experiment: Experiment) -> Section:
    """The headline, a paragraph a curve, and the numbers of each run, over its seeds and by itself."""
    names = list(experiment.curves)

    def place(curve: Curve) -> tuple[int, float, str, int]:
        return names.index(curve.curve), curve.budget or math.inf, curve.run, curve.seed

    outcomes = [(curve, outcome_of(curve)) for curve in sorted(experiment.table.records, key=place)]
    rows = []
    for run, group in groupby(outcomes, key=lambda each: each[0].run):
        every = list(group)
        own = [outcome for curve, outcome in every if curve.is_complete] or [outcome for _, outcome in every]
        read = [outcome.to_json() for outcome in own]
        figures = {key: Estimate.of([each[key] for each in read]) for key in read[0]}
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
    values = {"leads": [lead for lead in experiment.leads if lead.num_turned + lead.num_unturned], "meanings": meanings}
    return Section("warnings", "Warnings that need no gold", values=values) if experiment.table.records else None


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


def samples(experiment: Experiment) -> Section | None:
    """The samples of all dots, by run and step; None without runs."""
    if not experiment.table.records:
        return None
    dots = dot_rows(experiment)
    longest = max(SHORTEST, min(LONGEST, MOST_CHARACTERS // (6 * len(dots))))
    read: dict[str, dict[str, Rows]] = {}
    for record in experiment.records:
        if record.folder is not None:
            kept = set(rollout_steps(record.folder))
            key = (record.run, record.seed, record.method)
            steps = [int(dot["at"]) for dot in dots if (dot["run"], dot["seed"], dot["method"]) == key]
            origin = read_origin(record.folder)
            if found := {str(at): _pick(record.folder, at, origin, longest) for at in steps if at in kept}:
                read[f"{record.run}, seed {record.seed}"] = found
    last = [(f"{name}: {list(own)[-1]}", list(own.values())[-1]) for name, own in list(read.items())[:MOST_RUNS]]
    return Section("samples", "What was written", values={"last": last, "read": read})


def _pick(folder: Path, step: int, origin: Origin | None, longest: int) -> Rows:
    """The distinct responses of a step with the largest gap, or without gold with the highest proxy; then, where there
    are more, the median one. Texts are cut to `longest` characters."""
    rows = read_rollouts(folder, step, COLUMNS).to_pylist()
    for row in rows:
        row["gold"] = row["gold"] if row["gold"] is not None and math.isfinite(row["gold"]) else None
        row["gap"] = float(origin.gap(row["proxy"], row["gold"])) if origin and row["gold"] is not None else None
    name = "gap" if any(row["gap"] is not None for row in rows) else "proxy"
    ranked = sorted((r for r in rows if r[name] is not None), key=lambda row: (-row[name], row["row"]))
    distinct = list({(row["prompt"], row["response"]): row for row in reversed(ranked)}.values())[::-1]
    ranks = enumerate(distinct[:MOST_SAMPLES], start=1)
    chosen = [_sample(row, f"{name.title()} rank {place} of {len(rows)}", longest) for place, row in ranks]
    if len(distinct) > MOST_SAMPLES:
        middle = _sample(ranked[len(ranked) // 2], f"Typical: the median {name}", longest)
        chosen.append(middle | {"is_typical": True})
    return chosen


def _sample(row: dict[str, Any], label: str, longest: int) -> dict[str, Any]:
    """One response to read: why it is shown, its gap (empty without gold), and its other figures in words."""
    gold = "not measured" if row["gold"] is None else number(row["gold"])
    figures = f"proxy {number(row['proxy'])} · gold {gold} · KL {number(row['kl_nats'])} nats · "
    return {
        "label": label,
        "gap": "" if row["gap"] is None else f"gap {number(row['gap'], signed=True)}",
        "prompt": _clipped(from_cell(row["prompt"]), longest),
        "response": _clipped(row["response"], longest),
        "figures": figures + plural(row["tokens"], "token") + ("" if row["ended"] else ", cut off"),
        "is_typical": False,
    }


def _clipped(text: str, longest: int) -> str:
    left_out = len(text) - longest
    return text if left_out <= 0 else f"{text[:longest]} … ({left_out} more in the Parquet file)"
