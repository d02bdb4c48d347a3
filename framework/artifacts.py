"""Folders that say what they are: a manifest with a fingerprint and the hashes of what they came from.

A stage whose inputs and configuration match an existing artifact is not run again. Files appear
whole or not at all: a folder is written beside its place and renamed.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from framework.data.paths import expand
from framework.errors import RunError, UserError
from framework.python_function import source_of

MANIFEST = "manifest.json"
REVISION = 1
"""Part of every fingerprint. Raise it where a default of the configuration changes its value: fingerprints are taken of
what is not at its default, and what was made under the old default must not pass for what the new one makes."""
PATH_KEYS = ("path", "encoder", "model", "published")
"""Settings that name a file or a folder: its contents are an input as much as its name."""
FUNCTION_KEY = "function"
"""The setting that names a function by its module: the module's file is an input too, what it imports is not."""


@dataclass(frozen=True)
class Artifact:
    """A finished folder."""

    path: Path
    fingerprint: str
    """Hash of the settings that made it."""
    sha256: str
    """Hash of its contents."""
    figures: dict[str, float]
    """What its stage measured."""


def read_artifact(path: Path, kind: str) -> Artifact | None:
    """The artifact at `path`, or None where there is none; refuses a folder of another kind."""
    manifest = path / MANIFEST
    if not manifest.is_file():
        return None
    record = read_manifest(path)
    if record["kind"] != kind:
        raise UserError(f"{path} holds a {record['kind']!r}, not a {kind!r}: choose another --out")
    return Artifact(path, record["fingerprint"], record["sha256"], record.get("figures", {}))


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the folder `path`.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        record = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path / MANIFEST} cannot be read ({error}): delete {path} and make it again") from error
    if not isinstance(record, dict) or not {"kind", "fingerprint"} <= record.keys():
        raise UserError(f"{path / MANIFEST} is not a manifest of ours: choose another --out")
    return record


def fingerprint(settings: Mapping[str, Any], parents: Mapping[str, Artifact]) -> str:
    """Hash of a stage's settings, of the files that they name, and of the contents of what it starts from."""
    tree = {
        "revision": REVISION,
        "settings": settings,
        "parents": {name: parent.sha256 for name, parent in parents.items()},
    }
    files = dict(_named_files(settings))
    if files:
        tree["files"] = files
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _named_files(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each path that settings name, where it stands on this machine, with the hash of what it holds."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _named_files(value)
        elif key in (*PATH_KEYS, FUNCTION_KEY):
            for place in [value] if isinstance(value, str) else value or ():
                path = source_of(place) if key == FUNCTION_KEY else Path(expand(place))
                if path and path.exists():
                    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
                    states = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(files)]
                    yield place, _hash_contents(tuple(states))


@lru_cache(maxsize=64)
def _hash_contents(states: tuple[tuple[str, int, int], ...]) -> str:
    """Hash of the files; their sizes and times are there to tell when it must be taken anew."""
    digest = hashlib.sha256()
    for name, _, _ in states:
        digest.update(_hash_file(Path(name)))
    return digest.hexdigest()


def _hash_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `path` when the block ends well.

    Raises:
        UserError: the place cannot be written.
        RunError: a file could not be written, on a full disk say; what stood at `path` is untouched.
    """
    scratch = path.with_name(f".{path.name}.writing")
    try:
        if scratch.exists():
            shutil.rmtree(scratch)
        scratch.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --out") from error
    try:
        yield scratch
        retired = path.with_name(f".{path.name}.old")
        if path.exists():
            shutil.rmtree(retired, ignore_errors=True)
            path.rename(retired)
        scratch.rename(path)
        shutil.rmtree(retired, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"could not finish {path}: {reason}; nothing there was changed") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_manifest(
    folder: Path, kind: str, stage: str, parents: Mapping[str, Artifact], figures: Mapping[str, float]
) -> None:
    """Describe a folder that is about to be complete: kind, hashes of contents and parents, code version.

    `stage` is its fingerprint.
    """
    hashes = {name: {"path": str(own.path), "sha256": own.sha256} for name, own in parents.items()}
    record = {
        "kind": kind,
        "fingerprint": stage,
        "sha256": hash_folder(folder),
        "parents": hashes,
        "figures": dict(figures),
        "code_version": code_version(),
    }
    write_text(folder / MANIFEST, json.dumps(record, indent=2) + "\n")


def hash_folder(folder: Path) -> str:
    """Hash of names and contents of every file, the manifest excepted."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(_hash_file(path))
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never half.

    Raises:
        RunError: the file could not be written.
    """
    with written_whole(path) as scratch:
        scratch.write_text(text)


def update_text(path: Path, text: str) -> None:
    """As `write_text`, but a file that holds the text already is left alone, and keeps its time."""
    if not path.is_file() or path.read_text() != text:
        write_text(path, text)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to, which then takes its place at once.

    Raises:
        RunError: the file could not be written.
    """
    scratch = path.with_name(f".{path.name}.writing")
    try:
        yield scratch
        os.replace(scratch, path)
    except OSError as error:
        raise RunError(f"could not write {path}: {error.strerror or error}; the old file is intact") from error


@lru_cache(maxsize=1)
def code_version() -> str:
    """The commit of the working copy that runs, `+` if it was changed, or "unknown" outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
