"""Sweeps on local Ray: trials side by side, one that fails, a driver that is killed, and the same table after all."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.csv
import pytest
import yaml

from framework.config import load_config
from jobs import __main__ as cli
from jobs.sweep import SweepView, run_sweep
from tests.tiny import TINY, contents

ROOT = Path(__file__).resolve().parents[2]
STEPS = 16
NAMES = ["run-budget_0.5", "run-budget_2"]
SETTINGS = TINY | {
    "steps": STEPS,
    "save_every": 4,
    "keep_checkpoints": 1,
    "kl": {"kind": "budget"},
    "seeds": [0, 1],
    "sweep": {"grid": {"kl.budget": [0.5, 2]}, "retries": 1},
}
ONE_AT_A_TIME = {"roles": {"policy": {"cpus": 8}}, "local": {"num_cpus": 8, "num_gpus": 0}}
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def write(folder: Path, layout: dict, **changes: object) -> Path:
    """A configuration of the tiny sweep on a layout of its own."""
    (folder / "layout.yaml").write_text(yaml.safe_dump(layout))
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | {"cluster": str(folder / "layout.yaml")} | changes))
    return path


def run_folders(out: Path) -> list[Path]:
    return [out / f"seed_{seed}" / name / "train" for seed in (0, 1) for name in NAMES]


def times(*folders: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for folder in folders for p in folder.rglob("*") if p.is_file()}


def beginnings(seen: list[tuple[str, int]], id: str) -> list[int]:
    """The steps at which a trial began, and began again."""
    steps = [step for name, step in seen if name == id]
    return steps[:1] + [step for before, step in itertools.pairwise(steps) if step != before + 1]


def statuses(out: Path) -> list[str]:
    return [row["status"] for row in json.loads((out / "trials.json").read_text())["trials"]]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write(tmp_path_factory.mktemp("inline"), ONE_AT_A_TIME)


@pytest.fixture(scope="module")
def calm(config, tmp_path_factory):
    """An undisturbed sweep, of inline trials one at a time."""
    out = tmp_path_factory.mktemp("calm") / "sweep"
    assert cli.main(["sweep", str(config), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def killed(config, tmp_path_factory):
    """A sweep whose driver was killed while its second trial ran, and what its finished trial then looked like."""
    out = tmp_path_factory.mktemp("killed") / "sweep"
    command = [sys.executable, "-m", "jobs", "sweep", str(config), "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 400
    while not (run_folders(out)[1] / "rollouts" / "step_000006.parquet").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    finished = [(run / "summary.json").is_file() for run in run_folders(out)]
    assert finished == [True, False, False, False]
    return out, times(run_folders(out)[0], *out.glob("seed_0/policy-*"), *out.glob("seed_1/reward-*"))


def test_a_killed_sweep_with_trials_that_die_comes_to_the_same_table(calm, killed):
    out, before = killed
    again, doomed = "run-budget_2-seed_0", "run-budget_0.5-seed_1"
    seen, retried = [], []

    def kill(trial, metrics):
        seen.append((trial.id, metrics["step"]))
        deaths = len([name for name, _ in retried if name == trial.id])
        if metrics["step"] > 10 and (trial.id == doomed or (trial.id == again and not deaths)):
            os.kill(metrics["pid"], signal.SIGKILL)

    view = SweepView(step=kill, retried=lambda trial, error: retried.append((trial.id, error)))
    result = run_sweep(load_config(out / "sweep.yaml"), out, lambda: False, view)

    assert [record.status for record in result.records] == ["finished", "finished", "failed", "finished"]
    assert statuses(out) == [record.status for record in result.records]
    assert [name for name, _ in retried] == [again, doomed]
    assert "process died" in result.failed[0].error and "\n" not in result.failed[0].error
    assert result.report is not None  # of the others
    # Each goes on from its own checkpoint: after the driver's end, and after its own.
    assert len(beginnings(seen, again)) == 2 and min(beginnings(seen, again)) >= 4
    assert beginnings(seen, doomed) == [0, 8]

    assert cli.main(["sweep", "--resume", str(out)]) == 0
    assert statuses(out) == ["finished"] * 4
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (out / "results.parquet").read_bytes() == (calm / "results.parquet").read_bytes()
    for mine, theirs in zip(run_folders(out), run_folders(calm), strict=True):
        assert contents(mine) == contents(theirs)


def test_tunes_own_logs_go_on_where_they_were(killed):
    out, _ = killed
    for name in NAMES:
        for seed in (0, 1):
            folder = out / "tune" / f"{name}-seed_{seed}"
            rows = [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]
            table = pyarrow.csv.read_csv(folder / "progress.csv")
            assert list(folder.glob("events*"))
            assert table["step"].to_pylist() == [
                row["step"] for row in rows
            ]  # one head, and no column that has moved
            assert table["gold"].to_pylist() == [row["gold"] for row in rows]
            assert rows[-1]["step"] == STEPS - 1


def test_a_sweep_done_twice_is_done_once(config, calm):
    before = times(calm / "seed_0", calm / "seed_1", calm / "tune")
    assert cli.main(["sweep", str(config), "--out", str(calm)]) == 0
    assert times(calm / "seed_0", calm / "seed_1", calm / "tune") == before
