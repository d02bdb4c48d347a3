"""Checkpoints: whole or absent, the last few kept, damaged ones passed over."""

import errno
import json
import shutil
from pathlib import Path

import pytest

from actors.group import Done
from framework.errors import RunError
from framework.kl import KlState
from framework.methods import Online
from jobs.checkpoint import STATE, Checkpoints
from jobs.run_state import RunState


class _Policy:
    """Saves two files, or fails half-way through."""

    failure: Exception | None = None

    saves = 0

    def save(self, folder: Path) -> Done:
        self.saves += 1
        (folder / "model").write_bytes(b"w" * 1000)
        if self.failure:
            raise self.failure
        (folder / "optimizer").write_bytes(bytes([self.saves]) * 500)
        return Done(None)


def _state(step: int) -> RunState:
    start = RunState.start(Online())
    return RunState(step, step + 1, KlState(**{**vars(start.kl), "coef": 0.1 + step}))


def _edit(checkpoint: Path, change) -> None:
    record = json.loads((checkpoint / STATE).read_text())
    change(record)
    (checkpoint / STATE).write_text(json.dumps(record))


@pytest.fixture
def policy():
    return _Policy()


def _saved(tmp_path: Path, policy: _Policy, steps: list[int], keep: int = 10) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path, keep)
    for step in steps:
        checkpoints.save(_state(step), policy)
    return checkpoints


def _names(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "checkpoints").iterdir())


def test_the_newest_by_number_is_read_with_its_state(tmp_path, policy):
    found, skipped = _saved(tmp_path, policy, [2, 10, 9]).latest()
    assert found == (tmp_path / "checkpoints" / "step_10", _state(10))
    assert skipped == []


def test_only_the_last_few_are_kept(tmp_path, policy):
    _saved(tmp_path, policy, [8, 9, 10, 11], keep=2)
    assert _names(tmp_path) == ["step_10", "step_11"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "model").write_bytes(b"w" * 999), "model is cut short"),
        (lambda p: (p / "optimizer").unlink(), "is incomplete"),
        (lambda p: (p / STATE).unlink(), "is incomplete"),
        (lambda p: (p / STATE).write_text('{"state": {'), "is incomplete"),
        (lambda p: (p / STATE).write_bytes(b"\xff\xfe"), "is incomplete"),
        (lambda p: (p / STATE).write_text("{}"), "is incomplete"),
        (lambda p: (p / "model").write_bytes(b"v" * 1000), "model is not what was written"),
        (lambda p: shutil.copy(p.parent / "step_2" / "optimizer", p), "optimizer is not what was written"),
        (lambda p: _edit(p, lambda record: record["state"].update(step=9)), "state.json is not what was written"),
        (lambda p: _edit(p, lambda record: record["state"]["kl"].update(coef=9)), "state.json is not what was written"),
        (lambda p: _edit(p, lambda record: record["sha256"].clear()), "state.json is not what was written"),
        (lambda p: (shutil.rmtree(p), shutil.copytree(p.parent / "step_2", p)), "is one of step 2"),
    ],
)
def test_a_damaged_one_is_passed_over_with_a_message(tmp_path, policy, damage, message):
    checkpoints = _saved(tmp_path, policy, [2, 4])
    damage(tmp_path / "checkpoints" / "step_4")
    found, skipped = checkpoints.latest()
    assert found == (tmp_path / "checkpoints" / "step_2", _state(2))
    assert len(skipped) == 1
    assert skipped[0].startswith("checkpoint step_4")
    assert message in skipped[0]
    assert "\n" not in skipped[0]


def test_one_from_before_there_were_hashes_is_read(tmp_path, policy):
    checkpoints = _saved(tmp_path, policy, [2])
    _edit(tmp_path / "checkpoints" / "step_2", lambda record: [record.pop(name) for name in ("sha256", "record")])
    assert checkpoints.latest() == ((tmp_path / "checkpoints" / "step_2", _state(2)), [])


def test_a_damaged_later_one_pushes_out_no_sound_one(tmp_path, policy):
    checkpoints = _saved(tmp_path, policy, [2, 6], keep=1)
    _edit(tmp_path / "checkpoints" / "step_6", lambda record: record.clear())
    checkpoints.save(_state(4), policy)
    assert _names(tmp_path) == ["step_4", "step_6"]
    assert checkpoints.latest()[0] == (tmp_path / "checkpoints" / "step_4", _state(4))
    checkpoints.save(_state(6), policy)
    assert _names(tmp_path) == ["step_6"] and checkpoints.latest()[1] == []


def test_where_all_are_damaged_none_is_found_and_each_is_named(tmp_path, policy):
    checkpoints = _saved(tmp_path, policy, [2, 4])
    for step in (2, 4):
        (tmp_path / "checkpoints" / f"step_{step}" / STATE).unlink()
    found, skipped = checkpoints.latest()
    assert found is None
    assert [message.split()[1] for message in skipped] == ["step_4", "step_2"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), RunError("policy: full")])
def test_a_save_that_fails_keeps_what_there_was(tmp_path, policy, failure):
    checkpoints = _saved(tmp_path, policy, [2], keep=1)
    policy.failure = failure
    with pytest.raises(RunError):
        checkpoints.save(_state(4), policy)
    assert _names(tmp_path) == ["step_2"]
    assert checkpoints.latest()[0] == (tmp_path / "checkpoints" / "step_2", _state(2))


def test_no_folder_is_no_checkpoint(tmp_path):
    assert Checkpoints(tmp_path, 2).latest() == (None, [])


def test_strangers_in_the_folder_are_left_alone(tmp_path, policy):
    checkpoints = _saved(tmp_path, policy, [2])
    (tmp_path / "checkpoints" / "step_9_backup").mkdir()
    (tmp_path / "checkpoints" / ".step_9.writing").mkdir()
    checkpoints.save(_state(4), policy)
    assert checkpoints.latest()[0][1] == _state(4)
    assert (tmp_path / "checkpoints" / "step_9_backup").is_dir()
