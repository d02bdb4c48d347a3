"""What a sweep costs beside its runs: N inline runs one at a time, against the same runs without a sweep.

    python tests/benchmarks/sweep_overhead.py [--runs N] [--steps S]

The runs are done one after the other in this process, then as a sweep on a Ray with room for one of them, then here
again. The fixed start is what a sweep costs once: everything up to its first run, its stages included, and everything
after its last. A run's own time and its time in the sweep (from the end of the one before it to its own) are medians:
the least of the former, of which there are more, would be a luckier one.
The last line is `RESULT {json}`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import yaml

from framework.config import Config, parse_config
from jobs.chain import Chain
from jobs.experiment.plan import plan_of
from jobs.experiment.run import ExperimentView, run_experiment
from jobs.run_folder import RunContext, make_run

SETTINGS: dict[str, Any] = {"backend": "inline", "label": {"pairs": 500}}
"""A run of the default size, from a reward model of few pairs: its fit is part of the fixed start."""
LIMIT = 1.15


def configuration(folder: Path, runs: int, steps: int) -> Config:
    """N budgets on a layout that takes one run at a time."""
    layout = folder / "layout.yaml"
    layout.write_text(yaml.safe_dump({"local": {"num_cpus": 1, "num_gpus": 0}}))
    sweep = {"grid": {"train.kl.budget": [2.0 + n for n in range(runs)]}}
    train = {"steps": steps, "kl": {"kind": "budget"}}
    return parse_config(SETTINGS | {"cluster": str(layout), "train": train, "sweep": sweep})


def own_times(cfg: Config, folder: Path) -> list[float]:
    """Seconds of each run on its own, in a process that has run one before."""
    plan = plan_of(cfg)
    seconds = []
    for number, planned in enumerate([plan[0], *plan]):  # the first warms up
        inputs = Chain(planned.cfg, folder).inputs
        began = time.perf_counter()
        make_run(inputs, folder / f"{number}" / "train", RunContext())
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def sweep_times(cfg: Config, out: Path) -> tuple[float, list[float]]:
    """Seconds of the whole sweep, and of each run but the first, whose worker is still to be started."""
    ends: list[float] = []
    view = ExperimentView(ended=lambda record: ends.append(time.perf_counter()))
    began = time.perf_counter()
    result = run_experiment(cfg, out, lambda: False, view, "local")
    total = time.perf_counter() - began
    assert [record.status for record in result.records] == ["finished"] * len(result.records), result.records
    return total, [after - before for before, after in itertools.pairwise(ends)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cfg = configuration(folder, options.runs, options.steps)
        own = own_times(cfg, folder / "own")
        total, swept = sweep_times(cfg, folder / "sweep")
        own += own_times(cfg, folder / "own_again")  # the machine may have changed its pace meanwhile
    fixed = total - options.runs * statistics.median(swept)
    ratio = statistics.median(swept) / statistics.median(own)
    print(f"one run on its own: {statistics.median(own):.2f} s ({min(own):.2f} to {max(own):.2f})")
    print(f"one run in a sweep: {statistics.median(swept):.2f} s ({min(swept):.2f} to {max(swept):.2f})")
    print(f"a sweep of {options.runs}: {total:.1f} s, of which {fixed:.1f} s once")
    print(f"in a sweep a run takes {ratio:.3f} times its own time; the limit is {LIMIT}")
    figures = {"own": own, "swept": swept, "total": total, "fixed": fixed, "ratio": ratio}
    print("RESULT", json.dumps({"runs": options.runs, "steps": options.steps, **figures}))
    assert ratio <= LIMIT, f"{ratio:.3f} > {LIMIT}"


if __name__ == "__main__":
    main()
