"""Stopping a run from outside and going on, and doing a finished run again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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


def stopped(number: signal.Signals, is_time: Callable[[], bool], *words: object) -> tuple[str, float]:
    """A command in a process of its own, sent a signal once it is time; gives what it printed and how long it took to end."""
    command = [sys.executable, "-m", "jobs", *map(str, words)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 240
    while not is_time():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    sent = time.monotonic()
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    return out, time.monotonic() - sent


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(config, undisturbed, stages, number):
    run = stages / "train"
    words = ["train", config, f"train.steps={STEPS}", "--out", stages]
    out, _ = stopped(number, (run / "rollouts" / "step_000001.parquet").exists, *words)
    assert f"next: goldilocks train --resume {run}" in out
    done = len((run / "metrics.jsonl").read_text().splitlines())
    assert 2 <= done < STEPS
    assert (run / "checkpoints" / f"step_{done}" / "state.json").is_file()
    assert not (run / "summary.json").exists()
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert contents(run) == contents(undisturbed)


@pytest.mark.parametrize(
    ("verb", "settings", "begun", "number"),
    [
        ("fit-policy", ["sft.steps=50000"], ".policy-*.unfinished/progress.json", signal.SIGINT),
        pytest.param("label", ["label.pairs=500000"], ".pairs-*.writing", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(
            "fit-reward",
            ["fit_reward.epochs=50000"],
            ".reward-*.unfinished/progress.json",
            signal.SIGTERM,
            marks=pytest.mark.slow,
        ),
        ("train", ["fit_reward.epochs=50000"], ".reward-*.unfinished/progress.json", signal.SIGINT),
        pytest.param(
            "best-of-n",
            ["best_of_n.prompts=60", "best_of_n.samples=50000"],
            ".pool-*.writing",
            signal.SIGTERM,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_signal_ends_a_stage_in_seconds(stages, config, verb, settings, begun, number):
    out, seconds = stopped(number, lambda: any(stages.glob(begun)), verb, config, *settings, "--out", stages)
    assert f"results: {stages}\n" in out
    assert f"next: goldilocks {verb} {config} {' '.join(settings)} --out {stages}\n" in out
    assert seconds < 60  # of a grace of five, on a machine that does much else
    assert not list(stages.rglob(".lock")) and not list(stages.rglob(".*.writing"))
    for state in stages.glob(".*.unfinished/*/state.json"):  # what a fit had come to is kept
        assert json.loads(state.read_text())["state"]["step"] >= 10


def test_a_stage_that_makes_no_move_is_ended_after_its_grace():
    code = "import sys, time, jobs.stop as s\ns.GRACE_SECONDS = 0.2\ns.StopSignal()\nprint('on', flush=True)\ntime.sleep(99)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert b"KeyboardInterrupt" in process.communicate(timeout=30)[1]


def test_a_run_done_twice_is_done_once(config, finished):
    run = finished / "train"
    before = {
        p: p.stat().st_mtime_ns for p in run.rglob("*") if p.suffix in (".jsonl", ".parquet", ".safetensors", ".json")
    }
    assert cli.main(["train", str(config), "--out", str(finished)]) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
