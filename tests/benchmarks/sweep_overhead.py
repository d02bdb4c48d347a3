"""What a sweep costs beside its trials: N inline trials one at a time, against the same run without a sweep.

`python tests/benchmarks/sweep_overhead.py [--trials N] [--steps S]`

A process of its own fits the stages, runs the run once to warm up, then N times through `start_run`: that is N times one
trial's own time. A sweep of the same N trials then runs on a Ray with room for one. Its fixed start is everything up to
the first trial's first step, and everything after the last trial's end: Ray, Tune, a worker's imports, the table and
the report.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
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
from framework.sweep import Trial, trials_of
from jobs.run_inputs import make_inputs
from jobs.sweep import SweepView, run_sweep
from jobs.train import RunContext, start_run

SETTINGS: dict[str, Any] = {"backend": "inline", "kl": {"kind": "budget"}, "label": {"pairs": 500}}
"""A run of the default size; fewer pairs, since their reward model is made before either clock starts to count."""
LIMIT = 1.15


def configuration(folder: Path, trials: int, steps: int) -> Config:
    """N budgets on a layout that takes one trial at a time."""
    layout = folder / "layout.yaml"
    layout.write_text(yaml.safe_dump({"local": {"num_cpus": 1, "num_gpus": 0}}))
    budgets = [2.0 + n for n in range(trials)]
    sweep = {"grid": {"kl.budget": budgets}}
    return parse_config(SETTINGS | {"cluster": str(layout), "steps": steps, "sweep": sweep})


def own_times(cfg: Config, folder: Path) -> list[tuple[float, float]]:
    """Seconds of each trial's run on its own, and to its first step, in a process that has run one before."""
    trials = trials_of(cfg)
    seconds = []
    for number, trial in enumerate([trials[0], *trials]):  # the first warms up
        run = folder / f"{number}" / trial.name / "train"
        inputs = make_inputs(trial.cfg, trial.name, run, lambda _: None, None)
        steps: list[float] = []
        began = time.perf_counter()
        show = RunContext(show=lambda step, metrics, steps=steps: steps.append(time.perf_counter()))
        start_run(trial.cfg, inputs.run, inputs.policy, inputs.reward, show)
        seconds.append((time.perf_counter() - began, steps[0] - began))
    return seconds[1:]


def sweep_times(cfg: Config, out: Path) -> dict[str, float]:
    """Seconds of the whole sweep, and of its parts."""
    stamps: dict[str, list[float]] = {"step": [], "ended": []}

    def note(name: str) -> None:
        stamps[name].append(time.perf_counter())

    def step(trial: Trial, metrics: dict[str, Any]) -> None:
        note("step")

    began = time.perf_counter()
    result = run_sweep(
        cfg, out, lambda: False, SweepView(step=step, ended=lambda record: note("ended")), "local"
    )
    total = time.perf_counter() - began
    assert [record.status for record in result.records] == ["finished"] * len(result.records), result.records
    return {
        "total": total,
        "start": stamps["step"][0] - began,
        "between": stamps["ended"][-1] - stamps["step"][0],
        "end": began + total - stamps["ended"][-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cfg = configuration(folder, options.trials, options.steps)
        before = own_times(cfg, folder / "own")
        swept = sweep_times(cfg, folder / "sweep")
        after = own_times(cfg, folder / "own_again")  # the machine may have changed its pace meanwhile
    whole, first = zip(*before, *after, strict=True)
    own = statistics.median(whole)
    # What a run needs to its first step is a trial's own, and stands in the start.
    fixed = swept["start"] + swept["end"] - statistics.median(first)
    ratio = (swept["total"] - fixed) / (options.trials * own)
    print(f"one trial on its own: {own:.2f} s ({min(whole):.2f} to {max(whole):.2f})")
    print(f"a sweep of {options.trials}: {swept['total']:.1f} s, of which {fixed:.1f} s once")
    print(f"the rest is {ratio:.3f} of {options.trials} trials' own time; the limit is {LIMIT}")
    record = {
        "trials": options.trials,
        "steps": options.steps,
        "own": own,
        "fixed": fixed,
        "ratio": ratio,
        **swept,
    }
    print("RESULT", json.dumps(record))
    assert ratio <= LIMIT, f"{ratio:.3f} > {LIMIT}"


if __name__ == "__main__":
    main()
