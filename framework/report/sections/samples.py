"""What was written: at every dot those responses on which proxy and gold disagree most, and a typical one."""

import math
from pathlib import Path
from typing import Any

from framework.analysis.experiment import Experiment
from framework.analysis.run_folder import Origin, read_origin, read_rollouts, rollout_steps
from framework.data.conversations import from_cell
from framework.report.drawn import dot_rows, runs_of
from framework.report.sections import Section
from framework.report.text import number, plural

COLUMNS = ("row", "prompt", "response", "tokens", "ended", "proxy", "gold", "kl_nats")
MOST_CHARACTERS = 2_400_000  # of all samples together: they share what room there is
SHORTEST, LONGEST = 160, 1500  # characters of a prompt, or of a response, that are shown
MOST_RUNS = 24  # runs whose last samples are read without a script
MOST_SAMPLES = 2  # of a step, a typical one left out

Sample = dict[str, Any]
"""One response to read: `label` says why it is shown, `gap` is empty without gold, `figures` are in words, and
`is_typical` marks the median response, for comparison."""


def samples(experiment: Experiment) -> Section | None:
    """The samples of all dots, by run and step; None without runs."""
    if not runs_of(experiment):
        return None
    dots = dot_rows(experiment)
    longest = max(SHORTEST, min(LONGEST, MOST_CHARACTERS // (6 * len(dots))))
    read: dict[str, dict[str, list[Sample]]] = {}
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


def _pick(folder: Path, step: int, origin: Origin | None, longest: int) -> list[Sample]:
    """The distinct responses of a step with the largest gap, or without gold with the highest proxy; then, where there
    are more, the median one. Texts are cut to `longest` characters."""
    rows = read_rollouts(folder, step, COLUMNS).to_pylist()
    for row in rows:
        row["gold"] = row["gold"] if row["gold"] is not None and math.isfinite(row["gold"]) else None
        row["gap"] = float(origin.gap(row["proxy"], row["gold"])) if origin and row["gold"] is not None else None
    name = "gap" if any(row["gap"] is not None for row in rows) else "proxy"
    ranked = sorted((r for r in rows if r[name] is not None), key=lambda row: (-row[name], row["row"]))
    distinct = list({(row["prompt"], row["response"]): row for row in reversed(ranked)}.values())[::-1]
    chosen = [
        _sample(row, f"{name.title()} rank {place} of {len(rows)}", longest)
        for place, row in enumerate(distinct[:MOST_SAMPLES], start=1)
    ]
    if len(distinct) > MOST_SAMPLES:
        middle = _sample(ranked[len(ranked) // 2], f"Typical: the median {name}", longest)
        chosen.append(middle | {"is_typical": True})
    return chosen


def _sample(row: dict[str, Any], label: str, longest: int) -> Sample:
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
