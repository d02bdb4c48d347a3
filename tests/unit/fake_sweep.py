"""The table of an experiment, made up: KL rises to its budget and stays, and gold turns over with √KL."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from framework.analysis.best_of_n import best_of_n_kl
from framework.analysis.columns import BEST_OF_N
from framework.analysis.table import Table

PEAKS = {"single": 2.5, "uwo": 5.0}
"""√KL at which gold turns; 4 for any other curve."""


def fake_table(
    *,
    curves: Sequence[str] = ("single", "uwo"),
    method: str = "online",
    budgets: Sequence[float | None] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
    seeds: int = 3,
    steps: int = 60,
    gold: bool = True,
    best_of_n: bool = True,
    missing: float = 0.0,
    statuses: Mapping[tuple[str, float | None, int], str] | None = None,
    drop: Sequence[str] = (),
) -> Table:
    """The table. `missing` is a share of rows without gold; `statuses` by curve, budget and seed; `drop` columns."""
    rng = np.random.default_rng(0)
    parts = []
    for curve in curves:
        for seed in range(seeds):
            shift = rng.normal(0, 0.03)
            for budget in budgets:
                status = (statuses or {}).get((curve, budget, seed), "finished")
                parts.append(_run(rng, curve, method, budget, seed, status, steps, shift, gold, missing))
            if best_of_n:
                parts.append(_pool(curve, seed, shift, gold))
    table = pa.concat_tables(parts, promote_options="default")
    return Table(table.drop_columns([name for name in drop if name in table.column_names]))


def gold_at(curve: str, d: np.ndarray) -> np.ndarray:
    """Gold without noise: the form that online runs follow, with its peak at `PEAKS` and a gain of about one."""
    peak = PEAKS.get(curve, 4.0)
    return d / peak * (1 - np.log(np.maximum(d, 1e-9) / peak))


def _run(rng, curve, method, budget, seed, status, steps, shift, gold, missing):
    step = np.arange(steps)
    kl = (budget or 20.0) * (1 - np.exp(-step / (0.15 * steps))) * (1 + rng.normal(0, 0.02))
    d = np.sqrt(kl)
    golds = gold_at(curve, d) + shift + rng.normal(0, 0.05, steps)
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
    name = f"{curve}-budget_{budget:g}" if budget else curve
    point = f"budget={budget:g}" if budget else ""
    return _rows(name, curve, point, method, budget, seed, status, "step", step, columns)


def _pool(curve, seed, shift, gold):
    n = 2 ** np.arange(8)
    kl = np.array([best_of_n_kl(int(value)) for value in n])
    golds = 0.6 * gold_at(curve, np.sqrt(kl)) + shift if gold else np.full(8, math.nan)
    columns = {"proxy": np.sqrt(kl), "gold": golds, "kl_nats": kl, "gap": kl}
    return _rows(curve, curve, "", BEST_OF_N, None, seed, "finished", "n", n, columns)


def _rows(run, curve, point, method, budget, seed, status, axis, at, columns):
    count = len(columns["gold"])
    labels = {"run": run, "curve": curve, "condition": "", "variant": curve, "point": point, "method": method}
    texts = {name: [value] * count for name, value in (labels | {"status": status, "axis": axis}).items()}
    return pa.table(
        {
            **texts,
            "seed": pa.array([seed] * count, pa.int64()),
            "budget": pa.array([budget] * count, pa.float64()),
            "at": pa.array(at, pa.float64()),
            **{name: pa.array(v, pa.float64(), from_pandas=True) for name, v in columns.items()},
        }
    )
