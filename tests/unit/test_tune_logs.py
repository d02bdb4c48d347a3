"""Tune's logs over several sessions of a sweep: no line is lost, and a table keeps its head."""

import csv
import json
from types import SimpleNamespace

import pytest

from jobs.tune_logs import CsvLog, JsonLog


@pytest.fixture
def session(tmp_path):
    """A session of a sweep that logs steps of one trial; Tune's copy to the folder that is kept comes at its end."""
    kept = tmp_path / "kept"
    kept.mkdir()

    def log(name, *attempts):
        here = tmp_path / name
        here.mkdir()
        trial = _Trial(
            config={"trial": "a"},
            local_path=str(here),
            init_local_path=lambda: None,
            storage=SimpleNamespace(trial_fs_path=str(kept)),
        )
        loggers = [JsonLog(), CsvLog()]
        for results in attempts:
            for logger in loggers:
                logger.log_trial_start(trial)
                for result in results:
                    logger.log_trial_result(0, trial, result)
                logger.log_trial_end(trial)
        for file in here.iterdir():
            (kept / file.name).write_bytes(file.read_bytes())
        return kept

    return log


class _Trial:
    """Hashable, as Tune's is."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def rows_of(kept):
    rows = [json.loads(line) for line in (kept / "result.json").read_text().splitlines()]
    with (kept / "progress.csv").open(newline="") as file:
        return rows, list(csv.DictReader(file))


def test_a_session_goes_on_under_the_head_of_the_one_before(session):
    session("first", [{"step": 0, "gold": 1.5}, {"step": 1, "gold": None}], [{"step": 1, "gold": 2.5}])
    kept = session("second", [{"gold": 3.5, "new": 1, "step": 2}], [{"gold": 4.5, "new": 1, "step": 3}])
    rows, table = rows_of(kept)
    assert [row["step"] for row in rows] == [0, 1, 1, 2, 3]
    assert [(row["step"], row["gold"]) for row in table] == [
        ("0", "1.5"), ("1", ""), ("1", "2.5"), ("2", "3.5"), ("3", "4.5")
    ]  # fmt: skip


def test_a_last_line_that_a_kill_cut_is_left_out(session):
    kept = session("first", [{"step": 0, "gold": 1.5}, {"step": 1, "gold": 2.5}])
    for name in ("result.json", "progress.csv"):
        (kept / name).write_bytes((kept / name).read_bytes()[:-4])
    rows, table = rows_of(session("second", [{"step": 1, "gold": 3.5}]))
    assert [row["gold"] for row in rows] == [1.5, 3.5]
    assert [row["gold"] for row in table] == ["1.5", "3.5"]


def test_a_session_without_a_step_leaves_the_logs_as_they_are(session):
    kept = session("first", [{"step": 0, "gold": 1.5}])
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    session("second", [])
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
