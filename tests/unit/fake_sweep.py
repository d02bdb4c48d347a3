"""The table of a sweep, made up: KL rises to its budget and stays, and gold turns over with √KL."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from framework.analysis.best_of_n import best_of_n_kl
from framework.analysis.sweep_table import SweepTable

PEAKS = {"single": 2.5, "uwo": 5.0}
"""√KL at which gold turns; 4 for any other method."""


def fake_table(
    *,
    methods: Sequence[str] = ("single", "uwo"),
    budgets: Sequence[float | None] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
    seeds: int = 3,
    steps: int = 60,
    gold: bool = True,
    best_of_n: bool = True,
    missing: float = 0.0,
    statuses: Mapping[tuple[str, float | None, int], str] | None = None,
    drop: Sequence[str] = (),
) -> SweepTable:
    """The table. `missing` is a share of rows without gold; `statuses` by method, budget and seed; `drop` columns."""
    rng = np.random.default_rng(0)
    parts = []
    for method in methods:
        for seed in range(seeds):
            shift = rng.normal(0, 0.03)
            for budget in budgets:
                status = (statuses or {}).get((method, budget, seed), "finished")
                parts.append(_trial(rng, method, budget, seed, status, steps, shift, gold, missing))
            if best_of_n:
                parts.append(_pool(method, seed, shift, gold))
    table = pa.concat_tables(parts, promote_options="default")
    return SweepTable(table.drop_columns([name for name in drop if name in table.column_names]))


def gold_at(method: str, d: np.ndarray) -> np.ndarray:
    """Gold without noise: the form that RL follows, with its peak at `PEAKS` and a gain of about one."""
    peak = PEAKS.get(method, 4.0)
    return d / peak * (1 - np.log(np.maximum(d, 1e-9) / peak))


def _trial(rng, method, budget, seed, status, steps, shift, gold, missing):
    step = np.arange(steps)
    kl = (budget or 20.0) * (1 - np.exp(-step / (0.15 * steps))) * (1 + rng.normal(0, 0.02))
    d = np.sqrt(kl)
    golds = gold_at(method, d) + shift + rng.normal(0, 0.05, steps)
    golds[rng.random(steps) < missing] = math.nan
    proxy = 0.7 * d + rng.normal(0, 0.05, steps)
    columns = {
        "proxy": proxy,
        "gold": golds if gold else np.full(steps, math.nan),
        "kl_nats": kl + rng.normal(0, 0.05 + 0.02 * kl),
        "kl_coef": 0.2 / (budget or 20.0) * np.exp(rng.normal(0, 0.02, steps).cumsum()),
        "gold_se": np.full(steps, 0.05 if gold else math.nan),
        "disagreement": 0.1 + 0.05 * d + rng.normal(0, 0.01, steps),
        "gap": proxy - golds if gold else np.full(steps, math.nan),
    }
    name = f"{method}-budget_{budget:g}" if budget else method
    return _rows(name, method, "rl", budget, seed, status, step, None, columns)


def _pool(method, seed, shift, gold):
    n = 2 ** np.arange(8)
    kl = np.array([best_of_n_kl(int(value)) for value in n])
    golds = 0.6 * gold_at(method, np.sqrt(kl)) + shift if gold else np.full(8, math.nan)
    columns = {"proxy": np.sqrt(kl), "gold": golds, "kl_nats": kl, "gap": kl}
    return _rows(method, method, "best_of_n", None, seed, "finished", None, n, columns)


def _rows(trial, method, optimiser, budget, seed, status, step, n, columns):
    count = len(columns["gold"])
    positions = {"step": step, "n": n}
    return pa.table(
        {
            "trial": [trial] * count,
            "method": [method] * count,
            "optimiser": [optimiser] * count,
            "budget": pa.array([budget] * count, pa.float64()),
            "seed": pa.array([seed] * count, pa.int64()),
            "status": [status] * count,
            **{
                name: pa.array([None] * count if v is None else v, pa.int64())
                for name, v in positions.items()
            },
            **{name: pa.array(v, pa.float64(), from_pandas=True) for name, v in columns.items()},
        }
    )
