"""Best-of-n curves at the size of a paper: 1,000 prompts x 1,024 responses, 20 values of n, 5 heads, 4 aggregations.

    python tests/benchmarks/best_of_n.py

Scores are random. The unit of time is one argsort of one proxy of the pool, taken in the same run, least of several.
The last line is `RESULT {json}`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from framework.aggregation import Entropic, Mean, Uncertainty, WorstCase
from framework.analysis.best_of_n import Ranking
from jobs.best_of_n import PoolScores, curves_of

AGGREGATIONS = (Mean(), WorstCase(), Uncertainty(), Entropic())


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The least wall time of several runs."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    shape = (options.prompts, options.samples)
    gold = random.normal(size=shape).astype(np.float32)
    heads = (gold + random.normal(size=(options.heads, *shape))).astype(np.float32)
    ns = sorted({round(n) for n in np.geomspace(1, options.samples, 24)})[-20:]
    proxy = heads.mean(axis=0).astype(np.float64)
    scores = PoolScores(heads, gold)

    sort = seconds(lambda: np.argsort(proxy, axis=1), options.repeats)
    one = seconds(lambda: Ranking.of(proxy).curve(gold, ns), options.repeats)
    tied = seconds(lambda: Ranking.of(proxy.round(1)).curve(gold, ns), options.repeats)
    everything = seconds(lambda: curves_of(scores, AGGREGATIONS, ns), 1)
    result = {
        "prompts": options.prompts,
        "samples": options.samples,
        "values_of_n": len(ns),
        "heads": options.heads,
        "aggregations": len(AGGREGATIONS),
        "argsort_seconds": round(sort, 4),
        "one_curve_seconds": round(one, 4),
        "one_curve_to_argsort": round(one / sort, 2),
        "one_tied_curve_to_argsort": round(tied / sort, 2),
        "everything_seconds": round(everything, 2),
        "everything_to_argsort": round(everything / sort, 1),
    }
    print(f"one curve: {one:.3f} s, {one / sort:.1f} argsorts of the pool")
    print(f"every aggregation, with win rates over one head: {everything:.1f} s")
    print(f"RESULT {json.dumps(result)}")


if __name__ == "__main__":
    main()
