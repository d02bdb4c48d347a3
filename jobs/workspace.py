"""Where the stages of an experiment put their folders."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from framework.artifacts import write_text
from framework.errors import UserError

LOCK_FILE = ".lock"
"""Holds the process that is at work in a folder; it stays when that ends, and means nothing then."""


@dataclass(frozen=True)
class Workspace:
    """A folder of stages. Each is named by what made it, so variants that agree on a stage share it."""

    root: Path

    def stage(self, kind: str, fingerprint: str) -> Path:
        """The folder of one stage, for example `policy-1f2e3d4c`."""
        return self.root / f"{kind}-{fingerprint[:8]}"


@contextlib.contextmanager
def claimed(file: Path, text: str, holds_same: Callable[[Path], bool]) -> Iterator[None]:
    """Makes the folder around `file` that of one experiment, by writing `text` there, and keeps other commands out of it
    for the length of a block; the system lets go of it when this process ends, however.

    Args:
        holds_same: whether the `file` that is there means the same experiment.

    Raises:
        UserError: the folder holds something else, or cannot be written, or another command is at work there.
    """
    out = file.parent
    with _writable(out):
        if file.exists():
            if not holds_same(file):
                raise UserError(
                    f"{out} holds an experiment of another configuration: choose another --out, or delete it"
                )
        elif out.exists() and any(path.name != LOCK_FILE for path in out.iterdir()):
            raise UserError(f"{out} is not empty and holds no experiment: choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError(errno.EACCES, "permission denied")
        lock = (out / LOCK_FILE).open("a+", encoding="utf-8")
    with lock:
        with _writable(out):
            _hold(lock, out)
        write_text(file, text)
        yield


def _hold(lock: TextIO, out: Path) -> None:
    """Take the lock, and leave word who has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip()
        raise UserError(f"an experiment is running in {out} (pid {holder}): wait for it, or end it") from None
    except OSError:  # a file system without locks
        pass
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()


@contextlib.contextmanager
def _writable(out: Path) -> Iterator[None]:
    """Says in one line that a folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out") from error
