"""Experiments whose true curves are known: points of seeds, a table of runs, and run folders."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from scipy.signal import lfilter

from framework.analysis.frontier import FORMS, Points
from framework.analysis.table import RunRecord, Table
from framework.seeding import numpy_generator

TRUTH = {"r0": 0.5, "alpha": 1.0, "beta": 0.5}


def rng_of(*parts):
    return numpy_generator("tests", *parts)


def with_gold(points, gold):
    return Points(points.d, gold, points.seed, points.seeds, points.starts, points.num_dropped)


def run_kl(rng, budget, steps):
    """KL that climbs to about the budget and is held there."""
    climb = 1 - np.exp(-np.arange(steps) / (steps / 5))
    return budget * climb * (1 + rng.normal(0, 0.1)) + rng.normal(0, 0.02 * budget, steps) * (climb > 0)


def noise(rng, steps, size, memory=0.8):
    """Noise that remembers: each value is `memory` times the last, and something new."""
    return lfilter([1], [1, -memory], rng.normal(0, size * math.sqrt(1 - memory**2), steps))


def noisy_points(
    rng, *, form="rl", truth=TRUTH, seeds=5, budgets=(2, 8, 32), steps=100, size=0.3, spread=1.0, memory=0.8
):
    """Points of seeds that each have a curve of their own, scattered about the true one."""
    d, gold, starts = [], [], []
    for _ in range(seeds):
        r0, alpha, beta = np.array(list(truth.values())) + spread * rng.normal(0, [0.1, 0.1, 0.05])
        for budget in budgets:
            own = np.sqrt(np.maximum(run_kl(rng, budget, steps), 0.0))
            signal = r0 + FORMS[form].basis(own) @ np.array([alpha, beta])
            d.append(own)
            gold.append(signal + noise(rng, steps, size, memory))
        starts.append(r0 + spread * rng.normal(0, 0.05))
    number = np.repeat(np.arange(seeds), len(budgets) * steps)
    return Points(np.concatenate(d), np.concatenate(gold), number, tuple(range(seeds)), np.array(starts), 0)


def known_table(rng, *, curves=("single", "uwo"), seeds=3, budgets=(1.0, 4.0, 16.0, 64.0), steps=100, method="online"):
    """A table as an experiment would write it; each later curve's gold turns later."""
    parts = []
    for position, curve in enumerate(curves):
        coefficients = np.array([TRUTH["alpha"], TRUTH["beta"] / (1 + 0.3 * position)])
        for seed in range(seeds):
            for budget in budgets:
                kl = run_kl(rng, budget, steps)
                d = np.sqrt(np.maximum(kl, 0))
                gold = TRUTH["r0"] + FORMS["rl"].basis(d) @ coefficients + noise(rng, steps, 0.05)
                labels = {
                    "run": f"{curve}-budget_{budget:g}",
                    "curve": curve,
                    "condition": "",
                    "variant": curve,
                    "point": f"budget={budget:g}",
                    "seed": seed,
                    "method": method,
                    "budget": budget,
                    "status": "finished",
                    "train.kl.budget": budget,
                    "axis": "step",
                }
                columns = {name: [value] * steps for name, value in labels.items()}
                columns |= {"at": np.arange(steps, dtype=float)}
                columns |= {"proxy": d, "gold": gold, "kl_nats": kl, "kl_coef": np.full(steps, 0.05)}
                parts.append(pa.table({**columns, "gap": d - gold}))
    return Table(pa.concat_tables(parts), ("train.kl.budget",))


def replaced(table, name, values):
    """The table with another column of this name."""
    place = table.data.column_names.index(name)
    return Table(table.data.set_column(place, name, pa.array(values)), table.settings)


def write_bare_run(folder: Path, *, rng, budget, steps=20, gold_every=1) -> Path:
    """A run folder with metrics and nothing that costs time."""
    folder.mkdir(parents=True)
    config = {
        "seed": 0,
        "train": {"kind": "online", "kl": {"kind": "budget", "budget": budget}},
        "aggregation": {"kind": "mean"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "fingerprint.txt").write_text("ab\n")
    kl = run_kl(rng, budget, steps)
    proxy = np.sqrt(np.maximum(kl, 0))
    gold = proxy + noise(rng, steps, 0.1)
    lines = [
        json.dumps(
            {
                "step": step,
                "proxy": float(proxy[step]),
                "heads": [0.1, 0.2],
                "gold": float(gold[step]) if step % gold_every == 0 else None,
                "kl_nats": float(kl[step]),
                "value_loss": None,
                "kl_coef": 0.05,
            }
        )
        for step in range(steps)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def record(folder, *, variant="single", budget=4.0, seed=0, status="finished", **changes) -> RunRecord:
    """The record of a run with this folder."""
    point = f"budget={budget:g}"
    own = {
        "run": f"{variant}-budget_{budget:g}",
        "curve": variant,
        "condition": "",
        "variant": variant,
        "point": point,
        "seed": seed,
        "method": "online",
        "budget": budget,
        "settings": {"train.kl.budget": budget},
        "status": status,
        "folder": folder,
    }
    return RunRecord(**own | changes)
