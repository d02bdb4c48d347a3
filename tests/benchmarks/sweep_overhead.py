"""What a sweep costs beside its trials: N inline trials one at a time, against the same runs without a sweep.

    python tests/benchmarks/sweep_overhead.py [--trials N] [--steps S]

The runs are done one after the other in this process, then as a sweep on a Ray with room for one trial, then here
again. The fixed start is what a sweep costs once: everything up to its first trial, its stages included, and everything
after its last. A trial's own time and its time in the sweep (from the end of the one before it to its own) are each the
least of several, for other work on the machine only ever adds to them; the medians are printed as well.
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
from framework.sweep import trials_of
from jobs.run_inputs import make_inputs
from jobs.sweep import SweepView, run_sweep
from jobs.train import RunContext, start_run

SETTINGS: dict[str, Any] = {"backend": "inline", "kl": {"kind": "budget"}, "label": {"pairs": 500}}
"""A run of the default size, from a reward model of few pairs: its fit is part of the fixed start."""
LIMIT = 1.15


def configuration(folder: Path, trials: int, steps: int) -> Config:
    """N budgets on a layout that takes one trial at a time."""
    layout = folder / "layout.yaml"
    layout.write_text(yaml.safe_dump({"local": {"num_cpus": 1, "num_gpus": 0}}))
    budgets = [2.0 + n for n in range(trials)]
    sweep = {"grid": {"kl.budget": budgets}}
    return parse_config(SETTINGS | {"cluster": str(layout), "steps": steps, "sweep": sweep})


def own_times(cfg: Config, folder: Path) -> list[float]:
    """Seconds of each trial's run on its own, in a process that has run one before."""
    trials = trials_of(cfg)
    seconds = []
    for number, trial in enumerate([trials[0], *trials]):  # the first warms up
        run = folder / f"{number}" / trial.name / "train"
        inputs = make_inputs(trial.cfg, trial.name, run, lambda _: None, None)
        began = time.perf_counter()
        start_run(trial.cfg, inputs.run, inputs.policy, inputs.reward, RunContext())
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def sweep_times(cfg: Config, out: Path) -> tuple[float, list[float]]:
    """Seconds of the whole sweep, and of each trial but the first, whose worker is still to be started."""
    ends: list[float] = []
    view = SweepView(ended=lambda record: ends.append(time.perf_counter()))
    began = time.perf_counter()
    result = run_sweep(cfg, out, lambda: False, view, "local")
    total = time.perf_counter() - began
    assert [record.status for record in result.records] == ["finished"] * len(result.records), result.records
    return total, [after - before for before, after in itertools.pairwise(ends)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cfg = configuration(folder, options.trials, options.steps)
        own = own_times(cfg, folder / "own")
        total, swept = sweep_times(cfg, folder / "sweep")
        own += own_times(cfg, folder / "own_again")  # the machine may have changed its pace meanwhile
    fixed = total - options.trials * statistics.median(swept)
    ratio, typical = min(swept) / min(own), statistics.median(swept) / statistics.median(own)
    print(f"one trial on its own: least {min(own):.2f} s, median {statistics.median(own):.2f} s")
    print(f"one trial in a sweep: least {min(swept):.2f} s, median {statistics.median(swept):.2f} s")
    print(f"a sweep of {options.trials}: {total:.1f} s, of which {fixed:.1f} s once")
    print(
        f"in a sweep a trial takes {ratio:.3f} times its own time (medians: {typical:.3f}); the limit is {LIMIT}"
    )
    figures = {"own": own, "swept": swept, "total": total, "fixed": fixed, "ratio": ratio, "typical": typical}
    print("RESULT", json.dumps({"trials": options.trials, "steps": options.steps, **figures}))
    assert ratio <= LIMIT, f"{ratio:.3f} > {LIMIT}"


if __name__ == "__main__":
    main()
