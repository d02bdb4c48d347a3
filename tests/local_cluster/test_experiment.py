"""Experiments on local Ray: runs side by side, one that fails, a driver that is killed, and the same table after all."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from framework.config import load_config
from jobs import __main__ as cli
from jobs.experiment.run import EXPERIMENT_FILE, ExperimentView, run_experiment
from tests.tiny import TINY, contents, merged

ROOT = Path(__file__).resolve().parents[2]
STEPS = 24
NAMES = ["run-budget_0.5", "run-budget_2"]
SETTINGS = merged(
    TINY,
    {
        "train": {"steps": STEPS, "save_every": 4, "keep_checkpoints": 1, "kl": {"kind": "budget"}},
        "seeds": [0, 1],
        "sweep": {"grid": {"train.kl.budget": [0.5, 2]}, "retries": 1},
    },
)
ONE_AT_A_TIME = {"roles": {"policy": {"cpus": 8}}, "local": {"num_cpus": 8, "num_gpus": 0}}
ROLES = {role: {"cpus": 0.25} for role in ("policy", "reference", "reward", "gold")}
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def write(folder: Path, layout: dict, settings: dict = SETTINGS, **changes: object) -> Path:
    """A configuration of a tiny experiment on a layout of its own."""
    (folder / "layout.yaml").write_text(yaml.safe_dump(layout))
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings | {"cluster": str(folder / "layout.yaml")} | changes))
    return path


def run_folders(out: Path) -> list[Path]:
    return [out / f"seed_{seed}" / name / "train" for seed in (0, 1) for name in NAMES]


def times(*folders: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for folder in folders for p in folder.rglob("*") if p.is_file()}


def beginnings(seen: list[tuple[str, int]], id: str) -> list[int]:
    """The steps at which a run began, and began again."""
    steps = [step for name, step in seen if name == id]
    return steps[:1] + [step for before, step in itertools.pairwise(steps) if step != before + 1]


def statuses(out: Path) -> list[str]:
    return [row["status"] for row in json.loads((out / "runs.json").read_text())["runs"]]


def killed_at(rollout: Path, *words: object) -> None:
    """Run a command of ours in a process of its own, and kill that once a rollout is there."""
    command = [sys.executable, "-m", "jobs", *map(str, words)]
    process = subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 400
    while not rollout.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write(tmp_path_factory.mktemp("inline"), ONE_AT_A_TIME)


@pytest.fixture(scope="module")
def calm(config, tmp_path_factory):
    """An undisturbed sweep, of inline runs one at a time."""
    out = tmp_path_factory.mktemp("calm") / "sweep"
    assert cli.main(["sweep", str(config), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def killed(config, tmp_path_factory):
    """A sweep whose driver was killed while its second run was under way, and what its finished run then looked like."""
    out = tmp_path_factory.mktemp("killed") / "sweep"
    killed_at(run_folders(out)[1] / "rollouts" / "step_000006.parquet", "sweep", config, "--out", out)
    finished = [(run / "summary.json").is_file() for run in run_folders(out)]
    assert finished == [True, False, False, False]
    return out, times(run_folders(out)[0], *out.glob("seed_0/policy-*"), *out.glob("seed_1/reward-*"))


@pytest.mark.slow
def test_a_killed_sweep_with_runs_that_die_comes_to_the_same_table(calm, killed, capsys):
    out, before = killed
    again, doomed = "run-budget_2-seed_0", "run-budget_0.5-seed_1"
    seen, retried = [], []

    def kill(run, metrics):
        seen.append((run.id, metrics["step"]))
        deaths = len([name for name, _ in retried if name == run.id])
        if metrics["step"] > 10 and (run.id == doomed or (run.id == again and not deaths)):
            os.kill(metrics["pid"], signal.SIGKILL)

    view = ExperimentView(step=kill, retried=lambda run, error: retried.append((run.id, error)))
    result = run_experiment(load_config(out / EXPERIMENT_FILE), out, lambda: False, view)

    assert [record.status for record in result.records] == ["finished", "finished", "failed", "finished"]
    assert statuses(out) == [record.status for record in result.records]
    assert [name for name, _ in retried] == [again, doomed]
    assert "process died" in result.failed[0].error and "\n" not in result.failed[0].error
    assert result.report is not None  # of the others
    # Each goes on from its own checkpoint: after the driver's end, and after its own.
    assert len(beginnings(seen, again)) == 2 and min(beginnings(seen, again)) >= 4
    assert beginnings(seen, doomed)[0] == 0 and beginnings(seen, doomed)[1] >= 8

    # Interrupted, it saves where it is, and says how to go on.
    done = interrupted(out, run_folders(out)[2], "step_000012.parquet")
    assert (run_folders(out)[2] / "checkpoints" / f"step_{done}").is_dir()
    assert f"next: the same command again, or --resume {out}" in capsys.readouterr().out
    assert statuses(out) == ["finished", "finished", "unfinished", "finished"]

    assert cli.main(["sweep", "--resume", str(out)]) == 0
    assert statuses(out) == ["finished"] * 4
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (out / "results.parquet").read_bytes() == (calm / "results.parquet").read_bytes()
    for mine, theirs in zip(run_folders(out), run_folders(calm), strict=True):
        assert contents(mine) == contents(theirs)


def interrupted(out: Path, run: Path, rollout: str) -> int:
    """Go on with a sweep and interrupt it once a rollout is there; gives the steps that its run then has."""

    def watch() -> None:
        while not (run / "rollouts" / rollout).exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
    assert cli.main(["sweep", "--resume", str(out)]) == 130
    return len((run / "metrics.jsonl").read_text().splitlines())


def test_a_sweep_done_twice_is_done_once(config, calm):
    before = times(calm / "seed_0", calm / "seed_1")
    assert cli.main(["sweep", str(config), "--out", str(calm)]) == 0
    assert times(calm / "seed_0", calm / "seed_1") == before


@pytest.mark.slow
def test_what_the_user_has_to_mend_is_not_tried_again(calm, tmp_path):
    out, retried = tmp_path / "sweep", []
    shutil.copytree(calm, out)
    run = run_folders(out)[3]
    shutil.rmtree(run)
    run.mkdir()
    (run / "thesis.tex").write_text("precious")
    view = ExperimentView(retried=lambda run, error: retried.append(error))
    result = run_experiment(load_config(out / EXPERIMENT_FILE), out, lambda: False, view)
    assert [record.status for record in result.records] == ["finished"] * 3 + ["failed"]
    assert result.failed[0].error == f"{run} is not empty and holds no run: choose another --out"
    assert not retried
    shutil.rmtree(run)
    assert cli.main(["sweep", "--resume", str(out)]) == 0
    assert (out / "results.parquet").read_bytes() == (calm / "results.parquet").read_bytes()


@pytest.mark.slow
def test_an_experiment_goes_on_elsewhere(calm, tmp_path):
    """Begun on one layout, gone on with on another, and ended inline."""
    out = tmp_path / "sweep"
    for backend, cpus in (("ray", 0.25), ("ray", 0.5), ("inline", 1)):
        folder = tmp_path / f"{backend}-{cpus}"
        folder.mkdir()
        layout = {"local": {"num_cpus": 8}, "roles": {role: {"cpus": cpus} for role in ROLES}}
        cfg = load_config(write(folder, layout, backend=backend, seeds=[0]))
        steps: list[int] = []
        view = ExperimentView(step=lambda run, metrics, steps=steps: steps.append(metrics["step"]))
        is_last = backend == "inline"
        stop = (lambda: False) if is_last else (lambda steps=steps: bool(steps))
        result = run_experiment(cfg, out, stop, view)
        assert {record.status for record in result.records} == {"finished" if is_last else "unfinished"}
    for run, undisturbed in zip(run_folders(out)[:2], run_folders(calm)[:2], strict=True):
        assert contents(run) == contents(undisturbed)


@pytest.mark.slow
def test_four_runs_of_four_actors_side_by_side(ray_session, calm, tmp_path):
    """One of them loses its policy once, one whenever it has it back."""
    config = write(tmp_path, {"local": {"num_cpus": 8}, "roles": ROLES}, backend="ray")
    out, again, doomed = tmp_path / "sweep", "run-budget_2-seed_0", "run-budget_0.5-seed_1"
    alive, seen, retried = [], [], []

    def step(run, metrics):
        seen.append((run.id, metrics["step"]))
        named = ray_session.util.list_named_actors(all_namespaces=True)
        alive.append(Counter(actor["namespace"] for actor in named if actor["namespace"].startswith("sweep-seed")))
        if metrics["step"] > 10 and (run.id == doomed or (run.id == again and again not in retried)):
            space = f"sweep-seed_{run.record.seed}-{run.record.run}"
            with contextlib.suppress(ValueError):  # steps are told a little late: it may be gone already
                ray_session.kill(ray_session.get_actor("policy", namespace=space))

    view = ExperimentView(step=step, retried=lambda run, error: retried.append(run.id))
    result = run_experiment(load_config(config), out, lambda: False, view)

    assert max(len(spaces) for spaces in alive) == 4
    assert [4] * 4 in [sorted(spaces.values()) for spaces in alive]
    assert [record.status for record in result.records] == ["finished", "finished", "failed", "finished"]
    assert sorted(retried) == [doomed, again]
    for name in (again, doomed):
        first, second = beginnings(seen, name)
        assert first == 0 and second >= 8
    assert result.failed[0].error.startswith("policy died in ")
    assert cli.main(["sweep", "--resume", str(out)]) == 0
    assert (out / "results.parquet").read_bytes() == (calm / "results.parquet").read_bytes()


def test_a_run_that_fits_nowhere_is_refused_before_anything_is_fitted(tmp_path, capsys):
    config = write(tmp_path, {"roles": ROLES | {"gold": {"cpus": 9}}}, backend="ray")
    assert cli.main(["sweep", str(config), "--out", str(tmp_path / "sweep")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "gold asks for 9 CPUs and 0 GPUs" in line and "has 8 CPUs and 4 GPUs" in line
    assert not list((tmp_path / "sweep").glob("seed_*"))
