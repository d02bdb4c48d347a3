"""Stopping a run from outside and going on, and doing a finished study again."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from jobs import __main__ as cli
from tests.tiny import contents

ROOT = Path(__file__).resolve().parents[2]
STEPS = 40


@pytest.fixture(scope="module")
def undisturbed(config, finished, tmp_path_factory) -> Path:
    """A run long enough to be interrupted."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    shutil.copytree(finished, out, ignore=shutil.ignore_patterns("train"))
    assert cli.main(["train", str(config), f"steps={STEPS}", "--out", str(out)]) == 0
    return out / "train"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(config, undisturbed, stages, number):
    run = stages / "train"
    command = [sys.executable, "-m", "jobs", "train", str(config), f"steps={STEPS}", "--out", str(stages)]
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


def _times(folder: Path) -> dict[str, int]:
    """When each file was last written, what a study sums up anew left out."""
    return {
        str(p.relative_to(folder)): p.stat().st_mtime_ns
        for p in folder.rglob("*")
        if p.is_file() and p.parent != folder
    }


@pytest.fixture
def study_config(config, tmp_path) -> Path:
    tree = yaml.safe_load(config.read_text()) | {
        "steps": 2,
        "variants": {
            "single": {"fit_reward.ensemble.kind": "single"},
            "ensemble": {"aggregation.kind": "worst_case"},
        },
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_study_done_twice_is_done_once(study_config, tmp_path, fails):
    out = tmp_path / "study"
    assert cli.main(["study", str(study_config), "--out", str(out)]) == 0
    before, summary = _times(out), (out / "summary.json").read_text()
    assert {"single", "ensemble"} <= {Path(name).parts[1] for name in before if len(Path(name).parts) > 1}
    assert len([name for name in before if "policy-" in name and name.endswith("manifest.json")]) == 1
    assert cli.main(["study", str(study_config), "--out", str(out)]) == 0
    assert _times(out) == before
    assert (out / "summary.json").read_text() == summary
    line = fails("study", study_config, "kl.coef=0.5", "--out", out, code=2)
    assert f"{out} holds a study of another configuration" in line
    assert _times(out) == before


def test_a_run_done_twice_is_done_once(config, finished):
    run = finished / "train"
    before = {
        p: p.stat().st_mtime_ns
        for p in run.rglob("*")
        if p.suffix in (".jsonl", ".parquet", ".safetensors", ".json")
    }
    assert cli.main(["train", str(config), "--out", str(finished)]) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.slow
def test_a_stopped_study_of_processes_saves_and_goes_on(study_config, tmp_path):
    tree = yaml.safe_load(study_config.read_text()) | {"steps": 60, "seeds": [0, 1], "save_every": 60}
    study_config.write_text(yaml.safe_dump(tree))
    out, calm = tmp_path / "study", tmp_path / "calm"
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "study", str(study_config), "--out", str(out)],
        cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while not list(out.glob("seed_*/*/train/rollouts/step_000003.parquet")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: every process of the command is told
    shown, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert "the same command again" in shown
    assert not (out / "summary.json").exists()
    assert not list(out.glob("seed_1/*/train/summary.json"))
    assert cli.main(["study", str(study_config), "--out", str(out)]) == 0
    assert cli.main(["study", str(study_config), "--out", str(calm)]) == 0
    for run in sorted(calm.glob("seed_*/*/train")):
        assert contents(out / run.relative_to(calm)) == contents(run)
