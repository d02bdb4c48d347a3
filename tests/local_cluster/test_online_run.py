"""A whole online run through Ray actors: the numbers are those of an inline run, byte for byte."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.run_folder import RunContext, resume_run
from tests.tiny import contents, make_tiny

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def inline(tiny, tmp_path_factory):
    run = tmp_path_factory.mktemp("inline") / "train"
    tiny.run(run)
    return contents(run)


@pytest.mark.parametrize(
    "layout", ["laptop", *(pytest.param(name, marks=pytest.mark.slow) for name in ("one_gpu", "four_gpu"))]
)
def test_ray_equals_inline_on_every_shipped_layout(tiny, inline, tmp_path, layout):
    run = tmp_path / "train"
    tiny.run(run, backend="ray", cluster=layout)
    assert contents(run) == inline


def test_replicated_scorers_equal_single_ones(tiny, inline, tmp_path):
    layout = tmp_path / "replicas.yaml"
    layout.write_text("roles:\n  reference: {replicas: 2, cpus: 0.2}\n  reward: {replicas: 2, cpus: 0.2}\n")
    run = tmp_path / "train"
    tiny.run(run, backend="ray", cluster=str(layout))
    assert contents(run) == inline


def test_begun_inline_and_resumed_on_ray(tiny, inline, tmp_path):
    run = tmp_path / "train"
    asked = iter(range(100))
    tiny.run(run, RunContext(stop_asked=lambda: next(asked) >= 5))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("backend: inline", "backend: ray"))
    assert resume_run(run, RunContext()).ended == "all steps"
    assert contents(run) == inline


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_a_run_on_ray_saves_and_says_how_to_go_on(tiny, inline, tmp_path, number):
    config = tmp_path / "tiny.yaml"
    config.write_text(tiny.but(backend="ray", train={"steps": 400, "save_every": 50}).to_yaml())
    run, command = tmp_path / "out" / "train", [sys.executable, "-m", "jobs", "train", str(config), "--out"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, str(run.parent)], cwd=ROOT, start_new_session=True, **pipes)
    deadline = time.monotonic() + 400
    while not (run / "rollouts" / "step_000001.parquet").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.01)
    os.killpg(process.pid, number)  # all that it started in its own group get it too, as by `timeout` or a scheduler
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert f"results: {run}" in out and f"next: goldilocks train --resume {run}" in out
    done = len((run / "metrics.jsonl").read_text().splitlines())
    assert 2 <= done < 400 and (run / "checkpoints" / f"step_{done}" / "state.json").is_file()
