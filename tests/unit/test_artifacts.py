"""Artifacts appear whole or not at all, and are remade when what they came from has changed."""

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from framework.artifacts import Artifact, fingerprint, hash_folder, read_artifact, write_manifest, write_text, writing
from framework.errors import RunError, UserError

PARENT = Artifact(Path("elsewhere"), "f", "sha-of-parent", {})


def _make(path: Path, text: str = "weights") -> None:
    with writing(path) as scratch:
        (scratch / "model").write_text(text)
        write_manifest(scratch, "policy", "f1", {"data": PARENT}, {"loss": 0.5})


def test_what_was_written_is_read(tmp_path):
    _make(tmp_path / "a")
    found = read_artifact(tmp_path / "a", "policy")
    assert found == Artifact(tmp_path / "a", "f1", hash_folder(tmp_path / "a"), {"loss": 0.5})
    assert read_artifact(tmp_path / "b", "policy") is None


def test_another_kind_is_refused(tmp_path):
    _make(tmp_path / "a")
    with pytest.raises(UserError, match="holds a 'policy', not a 'reward'"):
        read_artifact(tmp_path / "a", "reward")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"kind": "policy"}'])
def test_a_damaged_manifest_is_named(tmp_path, text):
    _make(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json"):
        read_artifact(tmp_path / "a", "policy")


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), SafetensorError("I/O error: no space")]
)
def test_a_full_disk_leaves_what_stood_there(tmp_path, failure):
    _make(tmp_path / "a", "old")
    with pytest.raises(RunError, match=r"could not finish .*[Nn]o space"), writing(tmp_path / "a") as scratch:
        (scratch / "model").write_text("half")
        raise failure
    assert (tmp_path / "a" / "model").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_an_interrupt_leaves_what_stood_there(tmp_path):
    _make(tmp_path / "a", "old")
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "a"):
        raise KeyboardInterrupt
    assert (tmp_path / "a" / "model").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_new_folder_takes_the_place_of_the_old(tmp_path):
    _make(tmp_path / "a", "old")
    (tmp_path / ".a.writing").mkdir()
    (tmp_path / ".a.writing" / "left by a crash").touch()
    _make(tmp_path / "a", "new")
    assert (tmp_path / "a" / "model").read_text() == "new"
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["manifest.json", "model"]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_place_that_cannot_be_written_is_the_users_mistake(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/a: Not a directory; choose another --out"):
        _make(tmp_path / "file" / "a")


def test_a_text_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(RunError, match="No space left on device; the old file is intact"):
            write_text(path, "new")
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"


def test_the_hash_sees_names_and_contents_but_not_the_manifest(tmp_path):
    _make(tmp_path / "a")
    before = hash_folder(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").write_text("{}")
    assert hash_folder(tmp_path / "a") == before
    (tmp_path / "a" / "model").rename(tmp_path / "a" / "renamed")
    renamed = hash_folder(tmp_path / "a")
    (tmp_path / "a" / "renamed").write_text("weightz")
    assert len({before, renamed, hash_folder(tmp_path / "a")}) == 3


def test_a_hash_is_remembered_only_while_nobody_has_touched_the_file(tmp_path):
    path = tmp_path / "weights"
    path.write_text("old")
    long_ago = path.stat().st_mtime_ns - 10**12
    os.utime(path, ns=(long_ago, long_ago))
    before = hash_folder(tmp_path)
    path.write_text("new")
    os.utime(path, ns=(long_ago, long_ago))
    assert path.stat().st_size == 3 and hash_folder(tmp_path) != before


def test_a_fingerprint_depends_on_settings_and_parents():
    prints = {
        fingerprint({"lr": 1}, {}),
        fingerprint({"lr": 2}, {}),
        fingerprint({"lr": 1}, {"data": PARENT}),
        fingerprint({"lr": 1}, {"data": Artifact(PARENT.path, "f", "another sha", {})}),
    }
    assert len(prints) == 4
    moved = Artifact(Path("moved"), "f", PARENT.sha256, {})
    assert fingerprint({"lr": 1}, {"data": moved}) == fingerprint({"lr": 1}, {"data": PARENT})


def test_a_fingerprint_depends_on_the_contents_of_files_that_settings_name(tmp_path):
    table, model = tmp_path / "t.parquet", tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("1")
    table.write_text("rows")
    settings = {"world": {"source": {"path": str(table)}}, "fit_reward": {"encoder": str(model)}}
    first = fingerprint(settings, {})
    assert fingerprint(settings, {}) == first
    table.write_text("other rows")
    second = fingerprint(settings, {})
    (model / "weights").write_text("22")
    assert len({first, second, fingerprint(settings, {})}) == 3
