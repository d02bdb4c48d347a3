"""Folders that say what they are: a manifest with a fingerprint and the hashes of what they came from.

Files appear whole or not at all: a folder is written beside its place and renamed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
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
REVISION = 2
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
    if not (path / MANIFEST).is_file():
        return None
    record = read_manifest(path)
    if record["kind"] != kind:
        raise UserError(f"{path} holds a {record['kind']!r}, not a {kind!r}: choose another --out")
    return Artifact(path, record["fingerprint"], record["sha256"], record.get("figures", {}))


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the folder `path`. Raises UserError where it is missing or damaged."""
    try:
        record = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = f"not JSON: {error}" if isinstance(error, ValueError) else error
        mend = f"put it back, or delete {path} and make it again"
        raise UserError(f"{path / MANIFEST} cannot be read ({why}): {mend}") from error
    if not isinstance(record, dict) or not {"kind", "fingerprint"} <= record.keys():
        raise UserError(f"{path / MANIFEST} is not a manifest of ours: choose another --out")
    return record


def fingerprint(settings: Mapping[str, Any], parents: Mapping[str, Artifact]) -> str:
    """Hash of a stage's settings, of the files that they name, and of the contents of what it starts from."""
    hashes = {name: parent.sha256 for name, parent in parents.items()}
    tree = {"revision": REVISION, "settings": settings, "parents": hashes}
    if files := dict(_named_files(settings)):
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
                    yield place, hashlib.sha256(b"".join(map(_hash_file, sorted(files)))).hexdigest()


def sealed(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The record, with the hash of every file that lies in the folder, and one of itself."""
    whole = dict(record) | {"sha256": _hash_files(folder)}
    return whole | {"record": _hash_record(whole)}


def broken_seal(record: Mapping[str, Any], folder: Path) -> str | None:
    """What is not as it was when the record was sealed: the name of a file, "" for the record itself, None for nothing."""
    if _hash_record({name: own for name, own in record.items() if name != "record"}) != record["record"]:
        return ""
    found = _hash_files(folder)
    return next((name for name, own in record["sha256"].items() if found.get(name) != own), None)


def _hash_files(folder: Path) -> dict[str, str]:
    return {p.name: _hash_file(p).hex() for p in sorted(folder.iterdir()) if p.is_file()}


def _hash_record(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _hash_file(path: Path) -> bytes:
    """Hash of the contents, remembered for as long as this process lives and nobody has touched the file.

    A change within the last two seconds might leave the times as they are: such a file is read every time.
    """
    found = path.stat()
    state = str(path.resolve()), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    is_young = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < 2e9
    return (_hash_state.__wrapped__ if is_young else _hash_state)(state)


@lru_cache(maxsize=4096)
def _hash_state(state: tuple[str, int, int, int, int]) -> bytes:
    with open(state[0], "rb") as file:
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
        scratch.mkdir(parents=True, exist_ok=True)
        held = _held_folder(scratch, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --out") from error
    try:
        for left in scratch.iterdir():  # by a kill
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
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
        os.close(held)


def _held_folder(scratch: Path, path: Path) -> int:
    """A descriptor of the scratch folder that keeps other processes from writing there; the system lets go of it."""
    held = os.open(scratch, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise UserError(f"another command is writing {path}: wait for it, or end it") from None
    except OSError:  # a file system without locks on folders; verbs hold a lock on a file
        pass
    return held


def write_manifest(
    folder: Path, kind: str, stage: str, parents: Mapping[str, Artifact], figures: Mapping[str, float]
) -> None:
    """Describe a folder that is about to be complete; `stage` is its fingerprint."""
    hashes = {name: {"path": str(own.path), "sha256": own.sha256} for name, own in parents.items()}
    record = {
        "kind": kind, "fingerprint": stage, "sha256": hash_folder(folder), "parents": hashes, "figures": dict(figures),
        "code_version": code_version(),
    }  # fmt: skip
    write_text(folder / MANIFEST, json.dumps(record, indent=2) + "\n")


def hash_folder(folder: Path) -> str:
    """Hash of names and contents of every file, the manifest excepted."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(_hash_file(path))
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never half. Raises RunError where that cannot be."""
    with written_whole(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def update_text(path: Path, text: str) -> None:
    """As `write_text`, but a file that holds the text already is left alone, and keeps its time."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to, which then takes its place at once. Raises RunError as `write_text`."""
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
