"""Sweeps whose true curves are known: points of seeds, a table of trials, and run folders."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from scipy.signal import lfilter

from framework.analysis.forms import FORMS
from framework.analysis.frontier import Points
from framework.analysis.sweep_table import SweepTable, TrialRecord
from framework.seeding import numpy_generator

TRUTH = {"r0": 0.5, "alpha": 1.0, "beta": 0.5}


def rng_of(*parts):
    return numpy_generator("tests", *parts)


def with_gold(points, gold):
    return Points(points.d, gold, points.seed, points.seeds, points.starts, points.num_dropped)


def trial_kl(rng, budget, steps):
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
            own = np.sqrt(np.maximum(trial_kl(rng, budget, steps), 0.0))
            signal = r0 + FORMS[form].basis(own) @ np.array([alpha, beta])
            d.append(own)
            gold.append(signal + noise(rng, steps, size, memory))
        starts.append(r0 + spread * rng.normal(0, 0.05))
    number = np.repeat(np.arange(seeds), len(budgets) * steps)
    return Points(np.concatenate(d), np.concatenate(gold), number, tuple(range(seeds)), np.array(starts), 0)


def known_table(rng, *, methods=("single", "uwo"), seeds=3, budgets=(1.0, 4.0, 16.0, 64.0), steps=100):
    """A table as a sweep would write it; each later method's gold turns later."""
    parts = []
    for position, method in enumerate(methods):
        coefficients = np.array([TRUTH["alpha"], TRUTH["beta"] / (1 + 0.3 * position)])
        for seed in range(seeds):
            for budget in budgets:
                kl = trial_kl(rng, budget, steps)
                d = np.sqrt(np.maximum(kl, 0))
                gold = TRUTH["r0"] + FORMS["rl"].basis(d) @ coefficients + noise(rng, steps, 0.05)
                labels = {
                    "trial": f"{method}-budget_{budget:g}",
                    "method": method,
                    "optimiser": "rl",
                    "budget": budget,
                    "seed": seed,
                    "status": "finished",
                    "kl.budget": budget,
                }
                columns = {name: [value] * steps for name, value in labels.items()}
                columns |= {"step": np.arange(steps), "n": pa.nulls(steps, pa.int64())}
                columns |= {"proxy": d, "gold": gold, "kl_nats": kl, "kl_coef": np.full(steps, 0.05)}
                parts.append(pa.table({**columns, "gap": d - gold}))
    return SweepTable(pa.concat_tables(parts), ("kl.budget",))


def write_trial(folder: Path, *, rng, budget, steps=20, gold_every=1) -> Path:
    """A run folder with metrics and nothing that costs time."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": 0, "aggregation": {"kind": "mean"}}))
    (folder / "fingerprint.txt").write_text("ab\n")
    kl = trial_kl(rng, budget, steps)
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


def record(run, *, method="single", budget=4.0, seed=0, status="finished", settings=None) -> TrialRecord:
    """The record of a trial with this run folder."""
    settings = {"kl.budget": budget} if settings is None else settings
    return TrialRecord(f"{method}-budget_{budget:g}", method, budget, seed, settings, status, run)
