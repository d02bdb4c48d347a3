"""`goldilocks sweep` and `check` as a user meets them before anything runs: one line for each mistake."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from framework.analysis.sweep_table import read_table
from framework.config import load_config
from framework.errors import UserError
from framework.sweep import Sweep, trials_of
from jobs import __main__ as cli
from jobs.trial_ledger import Ledger
from jobs.workspace import alone_in, claim

GRID = "sweep={grid: {kl.budget: [1, 2, 4], label.noise: [0, 0.25]}}"


def test_check_counts_trials_and_says_how_many_go_at_a_time(config, tmp_path, capsys):
    layout = tmp_path / "layout.yaml"
    layout.write_text("roles: {policy: {cpus: 2, gpus: 0.5}}\nlocal: {num_cpus: 12, num_gpus: 1}\n")
    words = [str(config), "backend=ray", f"cluster={layout}", "kl.kind=budget", GRID, "seeds=[0, 1]"]
    assert cli.main(["check", *words]) == 0
    assert (
        "a sweep: 2 methods x 3 points x 2 seeds = 12 trials; each asks for 5 CPUs and 0.5 GPUs; "
        "2 at a time on this machine"
    ) in capsys.readouterr().out
    assert cli.main(["check", *words, "backend=inline"]) == 0
    assert "each asks for 2 CPUs and 0.5 GPUs; 2 at a time" in capsys.readouterr().out


def test_check_reads_every_trial(config, fails):
    line = fails("check", config, "kl.kind=budget", "sweep={grid: {update.minibatches: [1, 3]}}", code=2)
    assert '{"update.minibatches": 3}' in line and "do not divide into update.minibatches=3" in line


def test_more_trials_than_the_limit_want_an_agreement(config, tmp_path, fails):
    grid = "sweep={limit: 5, grid: {kl.budget: [1, 2, 4], label.noise: [0, 0.25]}}"
    line = fails("sweep", config, "kl.kind=budget", grid, "--out", tmp_path / "out", code=2)
    assert "the sweep has 6 trials and sweep.limit=5: add --yes" in line
    assert not (tmp_path / "out").exists()
    # A grid that no machine could spell out is counted, not made.
    huge = f"sweep={{grid: {{kl.budget: {list(range(1, 301))}, kl.gain: {list(range(1, 301))}}}}}"
    assert "90000 trials" in fails("sweep", config, "kl.kind=budget", huge, "--out", tmp_path / "out", code=2)
    line = fails("check", config, "kl.kind=budget", huge, code=2)
    assert "90000 trials and sweep.limit=100" in line and "set sweep.limit=90000" in line


def test_a_folder_of_something_else_is_left_alone(config, tmp_path, fails):
    out = tmp_path / "out"
    out.mkdir()
    words = (config, "kl.kind=budget", GRID, "--out", out)
    (out / "study.yaml").write_text(config.read_text())
    assert f"{out} is not empty and holds no sweep" in fails("sweep", *words, code=2)
    (out / "study.yaml").unlink()
    tree = yaml.safe_load(config.read_text()) | {
        "kl": {"kind": "budget"},
        "sweep": {"points": [{"kl.budget": 3}]},
    }
    (out / "sweep.yaml").write_text(yaml.safe_dump(tree))
    before = (out / "sweep.yaml").read_bytes()
    assert f"{out} holds a sweep of another configuration" in fails("sweep", *words, code=2)
    assert (out / "sweep.yaml").read_bytes() == before and len(list(out.iterdir())) == 1


def test_a_sweep_keeps_its_seeds(config, tmp_path, fails):
    words = [config, "kl.kind=budget", "sweep={grid: {kl.budget: [1, 2]}}"]
    tree = yaml.safe_load(config.read_text()) | {"kl": {"kind": "budget"}, "seeds": [0, 1, 2]}
    tree["sweep"] = {"grid": {"kl.budget": [1, 2]}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(tree))
    line = fails("sweep", *words, "--seed", 1, "--out", tmp_path, code=2)
    assert (
        f"{tmp_path} holds this sweep with the seeds 0, 1, 2, and 0, 2 would be missing: set seeds=[" in line
    )
    assert f"`goldilocks sweep --resume {tmp_path}`" in line
    assert yaml.safe_load((tmp_path / "sweep.yaml").read_text()) == tree
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_takes_one_sweep_at_a_time(config, tmp_path, fails):
    out = tmp_path / "out"
    words = (config, "kl.kind=budget", GRID, "--out", out)
    with alone_in(out, "sweep"):
        line = fails("sweep", *words, code=2)
    assert f"a sweep is running in {out} (pid {os.getpid()}): wait for it, or end it" in line
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_written_is_a_mistake_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=f"cannot write {tmp_path}: permission denied; choose another --out"):
        claim(tmp_path / "study.yaml", "text", "study", lambda file: True)
    assert not list(tmp_path.iterdir())


def test_tune_is_given_absolute_folders(tmp_path, monkeypatch):
    """Trials look for the halt file from a folder of Tune's own."""
    from jobs import tune_trials

    class _StopError(Exception):
        pass

    given = {}

    def with_parameters(trainable, **parameters):
        given.update(parameters)
        raise _StopError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune_trials.tune, "with_parameters", with_parameters)
    with pytest.raises(_StopError):
        tune_trials.run_trials([], Sweep(), Path("out/tune"), lambda: False, tune_trials.TrialWatch())
    assert given["halt"] == tmp_path / "out" / "tune" / "stopping"


def test_a_sweep_that_is_killed_lets_go_of_its_folder(tmp_path):
    hold = "import sys, pathlib, jobs.workspace as w\nwith w.alone_in(pathlib.Path(sys.argv[1]), 'sweep'): input()"
    process = subprocess.Popen([sys.executable, "-c", hold, tmp_path], stdin=subprocess.PIPE)
    while not (tmp_path / ".lock").exists() or not (tmp_path / ".lock").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    with pytest.raises(UserError, match=f"pid {process.pid}"), alone_in(tmp_path, "sweep"):
        pass
    process.kill()
    process.communicate()
    with alone_in(tmp_path, "sweep"):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_resuming_takes_a_sweep_and_nothing_else(config, tmp_path, fails):
    assert f"{tmp_path} holds no sweep to resume" in fails("sweep", "--resume", tmp_path, code=2)
    assert "give nothing else" in fails("sweep", config, "--resume", tmp_path, code=2)


def test_a_sweep_without_a_step_has_nothing_to_report(config, tmp_path, fails):
    tree = yaml.safe_load(config.read_text()) | {"kl": {"kind": "budget"}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(tree))
    line = fails("report", tmp_path, code=2)
    assert f"go on with `goldilocks sweep --resume {tmp_path}`" in line


@pytest.fixture
def swept(config: Path, finished: Path, tmp_path: Path) -> Path:
    """The folder of a sweep of one method at two budgets: one trial has a run, the other failed before it began."""
    tree = yaml.safe_load(config.read_text()) | {
        "kl": {"kind": "budget"}, "sweep": {"grid": {"kl.budget": [1, 2]}}
    }  # fmt: skip
    out = tmp_path / "swept"
    out.mkdir()
    (out / "sweep.yaml").write_text(yaml.safe_dump(tree))
    first, second = trials = trials_of(load_config(out / "sweep.yaml"))
    shutil.copytree(finished / "train", Ledger(out, trials).run(first))
    Ledger(out, trials).note(second, "failed", "the reward model at here is not to be read")
    return out


def test_a_sweep_is_reported_again_from_its_table_alone(swept, capsys):
    assert cli.main(["report", str(swept)]) == 0
    shown = capsys.readouterr().out
    assert "failed: run-budget_2, seed 0: the reward model at here is not to be read" in shown
    assert "budget asked" in shown and str(swept / "report.html") in shown
    files = {name: (swept / name).read_bytes() for name in ("results.parquet", "analysis.json")}
    assert json.loads(files["analysis.json"])["methods"]["run"]
    shutil.rmtree(swept / "seed_0")
    (swept / "analysis.json").unlink()
    assert cli.main(["report", str(swept)]) == 0
    assert {name: (swept / name).read_bytes() for name in files} == files


def test_a_sweep_with_trials_to_run_is_reported_from_its_runs_and_keeps_no_table(swept, fails):
    ledger = Ledger(swept, trials_of(load_config(swept / "sweep.yaml")))
    first, second = ledger.states.values()
    ledger.note(second[0], "unfinished", None)
    assert cli.main(["report", str(swept)]) == 0
    assert (swept / "report.html").is_file() and not (swept / "results.parquet").exists()
    assert "run-budget_2" not in (swept / "analysis.json").read_text()
    # The other trial has come to its end since, and a table of another time is there.
    shutil.copytree(ledger.run(first[0]), ledger.run(second[0]))
    (swept / "results.parquet").write_bytes(b"of another time")
    assert cli.main(["report", str(swept)]) == 0
    assert set(read_table(swept / "results.parquet").data["trial"].to_pylist()) == {
        "run-budget_1",
        "run-budget_2",
    }
