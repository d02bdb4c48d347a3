"""Experiments without a grid: variants under conditions, compared; and that `sweep` and `study` are one command."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from framework.config import load_config
from jobs import __main__ as cli
from jobs.experiment.plan import plan_of
from tests.kills import without_the_clock
from tests.local_cluster.test_experiment import ONE_AT_A_TIME, ROOT, killed_at, times, write
from tests.tiny import TINY, contents, merged

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

CROSSED = merged(
    TINY,
    {
        "aggregation": {"kind": "mean"},
        "train": {"steps": 2},
        "best_of_n": {"prompts": 2, "samples": 4, "batch": 16},
        "conditions": {"noisy": {"label.noise": 0.25}, "clean": {"label.noise": 0.0}},
        "variants": {"single": {}, "worst_case": {"aggregation.kind": "worst_case"}},
        "baseline": "single",
    },
)


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    """A finished study of two conditions and two variants, with best-of-n."""
    folder = tmp_path_factory.mktemp("crossed")
    config, out = write(folder, {"local": {"num_cpus": 8}}, CROSSED), folder / "out"
    assert cli.main(["study", str(config), "--out", str(out)]) == 0
    return config, out


def win_rate(summary: dict, by: str, condition: str) -> float | None:
    """Of worst_case against single."""
    rows = summary["comparison"]["rows"]
    (row,) = (r for r in rows if (r["by"], r["condition"], r["variant"]) == (by, condition, "worst_case"))
    return row["win_rate"]["mean"]


def test_a_crossed_study_shares_what_its_runs_agree_on(crossed):
    config, out = crossed
    seed = out / "seed_0"
    kinds = [path.name.partition("-")[0] for path in seed.iterdir() if not (path / "train").exists()]
    # Noise changes pairs, and with them the reward model; two aggregations of one reward share its scores.
    assert sorted(kinds) == ["pairs", "pairs", "policy", "pool", "reward", "reward", "scores", "scores"]
    names = [run.record.run for run in plan_of(load_config(config))]
    links = {name: json.loads((seed / name / "pool.json").read_text()) for name in names}
    assert links["noisy-single"] == links["noisy-worst_case"] != links["clean-single"]
    assert (seed / "clean-single" / links["clean-single"]["scores"]).is_file()


def test_a_crossed_study_is_compared_and_can_be_moved(crossed, tmp_path):
    config, out = crossed
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["curves"]) == [run.record.run for run in plan_of(load_config(config))]
    assert summary["baseline"] == summary["comparison"]["baseline"] == "single"
    assert win_rate(summary, "best_of_n", "noisy") is not None
    assert "best-of-n" in (out / "report.html").read_text().lower()
    moved = shutil.copytree(out, tmp_path / "out")
    (moved / "summary.json").unlink()
    assert cli.main(["report", str(moved)]) == 0
    assert json.loads((moved / "summary.json").read_text()) == summary
    # Where a run is gone, its table stands for it; rollouts and pools are those that are left.
    shutil.rmtree(moved / "seed_0" / "noisy-single")
    assert cli.main(["report", str(moved)]) == 0
    left = json.loads((moved / "summary.json").read_text())
    assert win_rate(left, "best_of_n", "noisy") is None
    assert win_rate(left, "runs", "clean") == win_rate(summary, "runs", "clean") is not None


def test_a_crossed_study_is_done_once_and_is_that_study(crossed, capsys):
    config, out = crossed
    before = {path: time for path, time in times(out).items() if path.parent != out}
    summary = (out / "summary.json").read_bytes()
    assert cli.main(["study", str(config), "--out", str(out)]) == 0
    assert {path: time for path, time in times(out).items() if path.parent != out} == before
    assert (out / "summary.json").read_bytes() == summary
    for change in (
        "baseline=worst_case", "train.kl.target=3", "conditions={noisy: {label.noise: 0.3}, clean: {}}"
    ):  # fmt: skip
        assert cli.main(["study", str(config), change, "--out", str(out)]) == 2
        assert "holds an experiment of another configuration" in capsys.readouterr().err


@pytest.mark.slow
def test_sweep_and_study_write_one_folder_killed_and_resumed_included(tmp_path):
    """Byte for byte, but for what the clock writes. One path for all: manifests name their parents' places."""
    settings = CROSSED | {"conditions": {}, "train": TINY["train"] | {"steps": 12}}
    config, out = write(tmp_path, ONE_AT_A_TIME, settings), tmp_path / "out"
    doomed = out / "seed_0" / "worst_case" / "train" / "rollouts" / "step_000005.parquet"
    folders = []
    for verb, again in (
        ("study", None), ("sweep", ["sweep", "--resume", out]), ("study", ["study", config, "--out", out])
    ):  # fmt: skip
        if again:
            killed_at(doomed, verb, config, "--out", out)
        assert cli.main([str(word) for word in again or [verb, config, "--out", out]]) == 0
        folders.append(shutil.move(out, tmp_path / f"{len(folders)}"))
    first, *others = (without_the_clock(Path(folder)) for folder in folders)
    for other in others:
        assert other.keys() == first.keys()
        assert [name for name in first if other[name] != first[name]] == []


@pytest.mark.slow
def test_a_stopped_study_of_processes_saves_and_goes_on(tmp_path):
    settings = CROSSED | {"conditions": {}, "seeds": [0, 1]}
    settings = merged(settings, {"train": {"steps": 60, "save_every": 60}})
    config = write(tmp_path, {"local": {"num_cpus": 8}}, settings)
    out, calm = tmp_path / "study", tmp_path / "calm"
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "study", str(config), "--out", str(out)],
        cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not list(out.glob("seed_*/*/train/rollouts/step_000003.parquet")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: every process of the command is told
    shown, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert "the same command again" in shown
    assert not (out / "summary.json").exists()
    assert not list(out.glob("seed_1/*/train/summary.json"))
    assert cli.main(["study", str(config), "--out", str(out)]) == 0
    assert cli.main(["study", str(config), "--out", str(calm)]) == 0
    for run in sorted(calm.glob("seed_*/*/train")):
        assert contents(out / run.relative_to(calm)) == contents(run)
