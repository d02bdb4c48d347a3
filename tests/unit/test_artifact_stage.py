"""What a stage finds in its folder: its own work, another's, or something that it must not touch."""

import pytest

from framework.artifacts import write_text
from framework.errors import UserError
from jobs.artifact_stage import make_artifact, unfinished


@pytest.fixture
def make(tmp_path):
    """Makes a stage, and notes how often its work was done."""
    done = []

    def work(scratch):
        done.append(scratch)
        write_text(scratch / "weights", "1")
        return {"loss": 0.5}

    def build(stage, kind="reward"):
        return make_artifact(tmp_path, kind, stage, {}, work)

    build.done = done
    return build


def test_nothing_there_or_an_empty_folder_is_work_to_do(make, tmp_path):
    (tmp_path / "reward-f1").mkdir()
    assert make("f1").figures == {"loss": 0.5}
    assert len(make.done) == 1


def test_the_same_settings_are_not_done_twice_and_others_are(make):
    first = make("0123abcd-one")
    assert make("0123abcd-one") == first
    assert len(make.done) == 1
    assert make("0123abcd-two").path == first.path  # named by the first letters alone, and made anew
    assert len(make.done) == 2


def test_what_a_stopped_stage_left_is_gone_once_it_is_made(make, tmp_path):
    left = unfinished(tmp_path / "reward-f1")
    left.mkdir()
    assert left.is_absolute()
    make("f1")
    assert not left.exists()


def test_a_folder_of_something_else_is_refused(make, tmp_path):
    (tmp_path / "reward-f1").mkdir()
    (tmp_path / "reward-f1" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not empty and is not a reward of ours: choose another --out"):
        make("f1")
    make("f2").path.rename(tmp_path / "pairs-f2")
    with pytest.raises(UserError, match="holds a 'reward', not a 'pairs'"):
        make("f2", kind="pairs")
