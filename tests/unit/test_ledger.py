"""What became of the runs of an experiment: told by their folders, and for the rest by runs.json."""

import json
import shutil
from pathlib import Path

import pytest

from framework.config import parse_config
from framework.errors import UserError
from jobs.experiment.ledger import RUNS_FILE, Ledger
from jobs.experiment.plan import PlannedRun, plan_of


def plan_of_budgets(*budgets: float) -> list[PlannedRun]:
    grid = {"train.kl.budget": budgets}
    return plan_of(parse_config({"train": {"kl": {"kind": "budget"}}, "sweep": {"grid": grid}}))


def finish(run: Path, ended: str = "all steps") -> None:
    run.mkdir(parents=True)
    (run / "summary.json").write_text(json.dumps({"ended": ended}))


def statuses(ledger: Ledger) -> list[str]:
    return [record.status for record in ledger.records()]


def test_run_folders_tell_what_is_finished_and_the_ledger_the_rest(tmp_path):
    plan = plan_of_budgets(1, 2, 3, 4, 5)
    ledger = Ledger(tmp_path, plan)
    assert [run.id for run in ledger.waiting] == [run.id for run in plan]
    finish(ledger.folder(plan[0]))
    finish(ledger.folder(plan[1]), "KL budget spent")
    for run, status in zip(plan, ("failed", "unfinished", "stopped", "failed", "finished"), strict=True):
        ledger.note(run, status, "it broke" if status == "failed" else None)

    again = Ledger(tmp_path, plan)
    assert statuses(again) == ["finished", "stopped", "stopped", "failed", "unfinished"]
    assert [record.error for record in again.records()] == [None, None, None, "it broke", None]
    assert [run.record.run for run in again.waiting] == ["run-budget_4", "run-budget_5"]
    assert all(record.folder is None for record in again.records())  # none of them logged a step


def test_run_folders_tell_what_the_scheduler_stopped_and_a_cut_file_is_no_end(tmp_path):
    stopped, cut, begun = plan = plan_of_budgets(1, 2, 3)
    ledger = Ledger(tmp_path, plan)
    ledger.note(stopped, "stopped", None)
    (tmp_path / RUNS_FILE).unlink()
    for run, line in ((cut, '{"step": 0, "go'), (begun, '{"step": 0}\n{"st')):
        ledger.folder(run).mkdir(parents=True)
        (ledger.folder(run) / "metrics.jsonl").write_text(line)
        (ledger.folder(run) / "summary.json").write_text('{"ended": "all')
    again = Ledger(tmp_path, plan)
    assert statuses(again) == ["stopped", "unfinished", "unfinished"]
    assert [record.folder for record in again.records()] == [None, None, again.folder(begun)]


def test_a_ledger_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / RUNS_FILE).write_text("{")
    with pytest.raises(UserError, match=r"runs\.json cannot be read"):
        Ledger(tmp_path, plan_of_budgets(1))


def test_a_done_run_whose_folder_is_gone_is_run_again_and_missed(tmp_path):
    first, second = plan = plan_of_budgets(1, 2)
    ledger = Ledger(tmp_path, plan)
    ledger.note(first, "stopped", None)
    finish(ledger.folder(second))
    ledger.note(second, "finished", None)
    whole = Ledger(tmp_path, plan)
    assert not whole.waiting and not whole.has_lost_runs
    shutil.rmtree(ledger.folder(first))
    again = Ledger(tmp_path, plan)
    assert again.waiting == [first] and again.has_lost_runs


def test_a_ledger_names_no_place_outside_the_experiment_and_is_written_once(tmp_path):
    (run,) = plan = plan_of_budgets(1)
    ledger = Ledger(tmp_path, plan)
    finish(ledger.folder(run))
    (ledger.folder(run) / "metrics.jsonl").write_text('{"step": 0}\n')
    ledger.note(run, "finished", None)
    (row,) = json.loads((tmp_path / RUNS_FILE).read_text())["runs"]
    assert (row["folder"], row["status"]) == ("seed_0/run-budget_1/train", "finished")
    assert row["settings"] == {"train.kl.budget": 1} and row["method"] == "online"
    before = (tmp_path / RUNS_FILE).stat().st_mtime_ns
    Ledger(tmp_path, plan).write()
    assert (tmp_path / RUNS_FILE).stat().st_mtime_ns == before
