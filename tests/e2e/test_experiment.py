"""`study`, `sweep` and `check` as a user meets them before anything runs: one line for each mistake."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from framework.analysis.table import read_table
from framework.config import load_config
from framework.errors import UserError
from framework.overrides import parse_overrides
from jobs import __main__ as cli
from jobs.experiment.ledger import Ledger
from jobs.experiment.plan import plan_of
from jobs.experiment.run import EXPERIMENT_FILE, SUMMARY_FILE, TABLE_FILE
from jobs.workspace import LOCK_FILE, claimed
from tests.tiny import merged

GRID = "sweep={grid: {train.kl.budget: [1, 2, 4], label.noise: [0, 0.25]}}"
BUDGET = "train.kl.kind=budget"


def tree_of(config: Path, **changes: object) -> dict:
    """The tiny configuration with budgets, and changes to it."""
    return merged(yaml.safe_load(config.read_text()) | changes, {"train": {"kl": {"kind": "budget"}}})


def test_check_counts_runs_and_says_how_many_go_at_a_time(config, tmp_path, capsys):
    layout = tmp_path / "layout.yaml"
    layout.write_text("roles: {policy: {cpus: 2, gpus: 0.5}}\nlocal: {num_cpus: 12, num_gpus: 1}\n")
    words = [str(config), "backend=ray", f"cluster={layout}", BUDGET, GRID, "seeds=[0, 1]"]
    assert cli.main(["check", *words]) == 0
    assert (
        "an experiment: 6 points x 2 seeds = 12 runs; each asks for 5 CPUs and 0.5 GPUs; 2 at a time on this machine"
    ) in capsys.readouterr().out
    assert cli.main(["check", *words, "backend=inline"]) == 0
    assert "each asks for 2 CPUs and 0.5 GPUs; 2 at a time" in capsys.readouterr().out


def test_check_reads_every_run(config, fails):
    line = fails("check", config, BUDGET, "sweep={grid: {train.update.minibatches: [1, 3]}}", code=2)
    assert '{"train.update.minibatches": 3}' in line
    assert "do not divide into train.update.minibatches=3" in line


@pytest.mark.parametrize("verb", ["study", "sweep"])
def test_more_runs_than_the_limit_want_an_agreement(config, tmp_path, fails, verb):
    grid = "sweep={limit: 5, grid: {train.kl.budget: [1, 2, 4], label.noise: [0, 0.25]}}"
    line = fails(verb, config, BUDGET, grid, "--out", tmp_path / "out", code=2)
    assert "the experiment has 6 runs and sweep.limit=5: add --yes" in line
    assert not (tmp_path / "out").exists()
    # A grid that no machine could spell out is counted, not made.
    huge = f"sweep={{grid: {{train.kl.budget: {list(range(1, 301))}, train.kl.gain: {list(range(1, 301))}}}}}"
    assert "90000 runs" in fails(verb, config, BUDGET, huge, "--out", tmp_path / "out", code=2)
    line = fails("check", config, BUDGET, huge, code=2)
    assert "90000 runs and sweep.limit=100" in line and "set sweep.limit=90000" in line


@pytest.mark.parametrize("verb", ["study", "sweep"])
def test_a_folder_of_something_else_is_left_alone(config, tmp_path, fails, verb):
    out = tmp_path / "out"
    out.mkdir()
    words = (config, BUDGET, GRID, "--out", out)
    (out / "study.yaml").write_text(config.read_text())
    assert f"{out} is not empty and holds no experiment" in fails(verb, *words, code=2)
    (out / "study.yaml").unlink()
    tree = tree_of(config, sweep={"points": [{"train.kl.budget": 3}]})
    (out / EXPERIMENT_FILE).write_text(yaml.safe_dump(tree))
    before = (out / EXPERIMENT_FILE).read_bytes()
    assert f"{out} holds an experiment of another configuration" in fails(verb, *words, code=2)
    assert (out / EXPERIMENT_FILE).read_bytes() == before and len(list(out.iterdir())) == 1


@pytest.mark.parametrize("grid", [{}, {"train.kl.budget": [1, 2]}])
def test_an_experiment_keeps_its_seeds(config, tmp_path, fails, grid):
    tree = tree_of(config, seeds=[0, 1, 2], sweep={"grid": grid})
    (tmp_path / EXPERIMENT_FILE).write_text(yaml.safe_dump(tree))
    words = [config, BUDGET, f"sweep={json.dumps({'grid': grid})}", "--seed", 1, "--out", tmp_path]
    line = fails("sweep" if grid else "study", *words, code=2)
    said = f"{tmp_path} holds this experiment with the seeds 0, 1, 2, and 0, 2 would be missing: set seeds=["
    assert said in line and f"--resume {tmp_path}" in line
    assert yaml.safe_load((tmp_path / EXPERIMENT_FILE).read_text()) == tree
    assert len(list(tmp_path.iterdir())) == 1


def held(out):
    """The folder of some experiment, while a command is at work in it."""
    return claimed(out / EXPERIMENT_FILE, "text", lambda file: True)


@pytest.mark.parametrize("verb", ["study", "sweep"])
def test_a_folder_takes_one_experiment_at_a_time(config, tmp_path, fails, verb):
    out = tmp_path / "out"
    words = (config, BUDGET, GRID, "--out", out)
    out.mkdir()
    (out / EXPERIMENT_FILE).write_text(load_config(config, parse_overrides([BUDGET, GRID])).to_yaml())
    before = (out / EXPERIMENT_FILE).read_text()
    with claimed(out / EXPERIMENT_FILE, before, lambda file: True):
        line = fails(verb, *words, code=2)
    assert f"another command is running in {out} (pid {os.getpid()}): wait for it, or end it" in line
    assert (out / EXPERIMENT_FILE).read_text() == before
    assert {path.name for path in out.iterdir()} == {EXPERIMENT_FILE}


def test_a_folder_that_cannot_be_written_is_a_mistake_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=f"cannot write {tmp_path}: permission denied; choose another --out"):
        held(tmp_path).__enter__()
    assert not list(tmp_path.iterdir())


def test_an_experiment_that_is_killed_lets_go_of_its_folder(tmp_path):
    hold = "import sys, pathlib, jobs.workspace as w\nfile = pathlib.Path(sys.argv[1], 'experiment.yaml')\n"
    hold += "with w.claimed(file, 'text', lambda file: True): input()"
    process = subprocess.Popen([sys.executable, "-c", hold, tmp_path], stdin=subprocess.PIPE)
    while not (tmp_path / EXPERIMENT_FILE).exists():
        assert process.poll() is None
        time.sleep(0.01)
    with pytest.raises(UserError, match=f"pid {process.pid}"), held(tmp_path):
        pass
    process.kill()
    process.communicate()
    with held(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("verb", ["study", "sweep"])
def test_resuming_takes_an_experiment_and_nothing_else(config, tmp_path, fails, verb):
    assert f"{tmp_path} holds no experiment to resume" in fails(verb, "--resume", tmp_path, code=2)
    assert "give nothing else" in fails(verb, config, "--resume", tmp_path, code=2)


def test_an_experiment_without_a_step_has_nothing_to_report(config, tmp_path, fails):
    (tmp_path / EXPERIMENT_FILE).write_text(yaml.safe_dump(tree_of(config)))
    line = fails("report", tmp_path, code=2)
    assert "holds an experiment without a step" in line and f"--resume {tmp_path}" in line


@pytest.fixture
def swept(config: Path, finished: Path, tmp_path: Path) -> Path:
    """The folder of one variant at two budgets: one of the runs is there, the other failed before it began."""
    tree = tree_of(config, sweep={"grid": {"train.kl.budget": [1, 2]}})
    out = tmp_path / "swept"
    out.mkdir()
    (out / EXPERIMENT_FILE).write_text(yaml.safe_dump(tree))
    first, second = plan = plan_of(load_config(out / EXPERIMENT_FILE))
    shutil.copytree(finished / "train", Ledger(out, plan).folder(first))
    Ledger(out, plan).note(second, "failed", "the reward model at here is not to be read")
    return out


def test_an_experiment_is_reported_again_from_its_table_alone(swept, capsys):
    assert cli.main(["report", str(swept)]) == 0
    shown = capsys.readouterr().out
    assert "failed: run-budget_2, seed 0: the reward model at here is not to be read" in shown
    assert "gold peak" in shown and str(swept / "report.html") in shown
    files = {name: (swept / name).read_bytes() for name in (TABLE_FILE, SUMMARY_FILE)}
    assert json.loads(files[SUMMARY_FILE])["curves"]["run"]
    shutil.rmtree(swept / "seed_0")
    (swept / SUMMARY_FILE).unlink()
    assert cli.main(["report", str(swept)]) == 0
    assert {name: (swept / name).read_bytes() for name in files} == files


def test_an_experiment_with_runs_to_make_is_reported_from_those_there_and_keeps_no_table(swept, fails):
    first, second = plan = plan_of(load_config(swept / EXPERIMENT_FILE))
    ledger = Ledger(swept, plan)
    ledger.note(second, "unfinished", None)
    assert cli.main(["report", str(swept)]) == 0
    assert (swept / "report.html").is_file() and not (swept / TABLE_FILE).exists()
    assert "run-budget_2" not in (swept / SUMMARY_FILE).read_text()
    # The other run has come to its end since, and a table of another time is there.
    shutil.copytree(ledger.folder(first), ledger.folder(second))
    (swept / TABLE_FILE).write_bytes(b"of another time")
    assert cli.main(["report", str(swept)]) == 0
    runs = read_table(swept / TABLE_FILE).data["run"].to_pylist()
    assert set(runs) == {"run-budget_1", "run-budget_2"}
