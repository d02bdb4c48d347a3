"""Stopping a run from outside and going on, and doing a finished run again."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs import __main__ as cli
from tests.tiny import contents

ROOT = Path(__file__).resolve().parents[2]
STEPS = 40


@pytest.fixture(scope="module")
def undisturbed(config, finished, tmp_path_factory) -> Path:
    """A run long enough to be interrupted."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    shutil.copytree(finished, out, ignore=shutil.ignore_patterns("train"))
    assert cli.main(["train", str(config), f"train.steps={STEPS}", "--out", str(out)]) == 0
    return out / "train"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(config, undisturbed, stages, number):
    run = stages / "train"
    command = [sys.executable, "-m", "jobs", "train", str(config), f"train.steps={STEPS}", "--out", str(stages)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 50
    while not (run / "rollouts" / "step_000001.parquet").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert f"next: goldilocks train --resume {run}" in out
    done = len((run / "metrics.jsonl").read_text().splitlines())
    assert 2 <= done < STEPS
    assert (run / "checkpoints" / f"step_{done}" / "state.json").is_file()
    assert not (run / "summary.json").exists()
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert contents(run) == contents(undisturbed)


def test_a_run_done_twice_is_done_once(config, finished):
    run = finished / "train"
    before = {
        p: p.stat().st_mtime_ns for p in run.rglob("*") if p.suffix in (".jsonl", ".parquet", ".safetensors", ".json")
    }
    assert cli.main(["train", str(config), "--out", str(finished)]) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
