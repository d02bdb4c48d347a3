"""Analysis and report of a sweep of 100 runs with 1,000 steps each; the target is ten seconds on one core.

    python tests/benchmarks/sweep_report.py
    python tests/benchmarks/sweep_report.py --runs 40 --steps 500

Two variants, ten seeds and five budgets, with run folders as `train` writes their metrics. `table` reads the folders,
`analysis` fits, `report` draws and writes the page. The target is on analysis and report.
Held to the target are CPU seconds of one thread, which other work on the machine does not lengthen; the wall clock is
beside them. The last line is `RESULT {json}`.
"""

import os

# Before numpy is imported: one core is what is measured.
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import yaml

from framework.analysis.experiment import analyse
from framework.analysis.records import RunRecord
from framework.analysis.table import build_table, read_table

TARGET_SECONDS = 10.0
VARIANTS, BUDGETS = ("single", "uwo"), (2.0, 4.0, 8.0, 16.0, 32.0)
OTHER_METRICS: tuple[str, ...] = (
    "reward",
    "disagreement",
    "gold_se",
    "kl_nats_se",
    "kl_per_token",
    "response_tokens",
    "ended",
    "entropy",
)
OTHER_METRICS += ("loss", "ratio", "clip_fraction", "value_loss", "grad_norm", "sampler_gap", "length_correlation")


def main() -> int:
    """0 where the target is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name), arguments.runs, arguments.steps)
    print("RESULT " + json.dumps(result))
    return 0 if result["met"] else 1


def measure(folder: Path, runs: int, steps: int) -> dict[str, Any]:
    """Seconds of each part."""
    # Late: it loads what draws the charts, whose start is no part of the figures.
    from framework.report import write_report

    records = [write_run(folder, number, steps) for number in range(runs)]
    timings: dict[str, dict[str, float]] = {}
    table = timed(timings, "table", lambda: build_table(records))
    path = table.write(folder / "results.parquet")
    table = read_table(path)
    analysis = timed(timings, "analysis", lambda: analyse("benchmark", table, records, VARIANTS[0]))
    page = timed(timings, "report", lambda: write_report(analysis, folder))
    seconds = timings["analysis"]["cpu_seconds"] + timings["report"]["cpu_seconds"]
    return {
        "runs": runs,
        "steps": steps,
        "rows": table.data.num_rows,
        "timings": timings,
        "cpu_seconds": seconds,
        "page_bytes": page.stat().st_size,
        "target_seconds": TARGET_SECONDS,
        "met": seconds < TARGET_SECONDS,
    }


def timed(timings: dict[str, dict[str, float]], name: str, work: Callable[[], Any]) -> Any:
    """What the work gives; its times are put under the name."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    timings[name] = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    print(f"{name}: {timings[name]['seconds']:.2f} s", flush=True)
    return result


def write_run(folder: Path, number: int, steps: int) -> RunRecord:
    """A run folder whose KL climbs to its budget while gold turns over, and its record."""
    arms = len(VARIANTS) * len(BUDGETS)
    seed, arm = divmod(number, arms)
    variant, budget = VARIANTS[arm // len(BUDGETS)], BUDGETS[arm % len(BUDGETS)]
    name = f"{variant}-budget_{budget:g}"
    run = folder / f"seed_{seed}" / name / "train"
    run.mkdir(parents=True)
    rng = np.random.default_rng(number)
    kl = budget * (1 - np.exp(-np.arange(steps) / (steps / 8))) + rng.normal(0, 0.03 * budget, steps)
    d = np.sqrt(np.maximum(kl, 0))
    gold = d * (1.2 - (0.3 if variant == "single" else 0.2) * d) + 0.1 * rng.normal() + rng.normal(0, 0.2, steps)
    columns = {"proxy": d + rng.normal(0, 0.1, steps), "gold": gold, "kl_nats": kl, "kl_coef": np.full(steps, 0.05)}
    columns |= {other: rng.normal(size=steps) for other in OTHER_METRICS}
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    lines = [json.dumps({"step": step, **dict(zip(columns, row, strict=True))}) for step, row in enumerate(rows)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (run / "config.yaml").write_text(yaml.safe_dump({"seed": seed}))
    (run / "fingerprint.txt").write_text("0\n")
    return RunRecord(
        run=name,
        curve=variant,
        condition="",
        variant=variant,
        point=f"train.kl.budget={budget:g}",
        seed=seed,
        method="online",
        budget=budget,
        settings={"train.kl.budget": budget},
        status="finished",
        folder=run,
    )


if __name__ == "__main__":
    sys.exit(main())
