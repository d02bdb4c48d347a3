"""What a stage finds in its folder: its own work, another's, or something that it must not touch."""

import pytest

from framework.artifacts import write_manifest, writing
from framework.errors import UserError
from jobs.artifact_stage import finished, made


def make(path, kind="reward", stage="f1"):
    with writing(path) as scratch:
        write_manifest(scratch, kind, stage, {}, {"loss": 0.5})


def test_nothing_there_or_an_empty_folder_is_work_to_do(tmp_path):
    assert finished(tmp_path / "none", "reward", "f1") is None
    assert finished(tmp_path, "reward", "f1") is None


def test_the_same_settings_are_not_done_twice_and_others_are(tmp_path):
    make(tmp_path / "reward")
    found = finished(tmp_path / "reward", "reward", "f1")
    assert found == made(tmp_path / "reward", "reward")
    assert found.figures == {"loss": 0.5}
    assert finished(tmp_path / "reward", "reward", "f2") is None


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not empty and is not a reward of ours: choose another --out"):
        finished(tmp_path, "reward", "f1")
    make(tmp_path / "pairs", kind="pairs")
    with pytest.raises(UserError, match="holds a 'pairs', not a 'reward'"):
        finished(tmp_path / "pairs", "reward", "f1")
