"""One command at a time in a folder."""

import contextlib
import errno
import fcntl
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from framework.artifacts import write_text
from framework.errors import UserError

LOCK_FILE = ".lock"
"""Holds the process that is at work in a folder; one that a kill has left means nothing."""


@contextlib.contextmanager
def working_in(folder: Path, patience_seconds: float = 0.0) -> Iterator[None]:
    """Keeps other commands out of a folder, made where it is not there, for the length of a block; the system lets go
    of it when this process ends, however.

    Waits `patience_seconds` for another command that is about to end; a UserError where it is still at work, or where
    the folder cannot be written.
    """
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "permission denied")
        lock = _hold(folder, time.monotonic() + patience_seconds)
    with lock:
        try:
            yield
        finally:  # while it is held: whoever has opened it meanwhile finds that it is gone, and makes another
            (folder / LOCK_FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(file: Path, text: str, holds_same: Callable[[Path], bool]) -> Iterator[None]:
    """Makes the folder around `file` that of one experiment, by writing `text` there, and works in it as `working_in` does.

    `holds_same` tells whether the `file` that is there means the same experiment; a UserError where it does not, or
    where the folder holds something else.
    """
    out = file.parent
    with _writable(out):
        if file.exists():
            if not holds_same(file):
                other = f"{out} holds an experiment of another configuration"
                raise UserError(f"{other}: choose another --out, or delete it")
        elif out.exists() and any(path.name != LOCK_FILE for path in out.iterdir()):
            raise UserError(f"{out} is not empty and holds no experiment: choose another --out")
    with working_in(out):
        write_text(file, text)
        yield


def _hold(folder: Path, deadline: float) -> TextIO:
    """The lock of a folder, with word in it of who has it."""
    path = folder / LOCK_FILE
    while True:
        lock = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                break
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.seek(0)
                other = f"another command is running in {folder} (pid {lock.read().strip()})"
                lock.close()
                raise UserError(f"{other}: wait for it, or end it") from None
            time.sleep(0.1)
        except OSError:
            without = f"{folder} lies on a file system without locks"
            warnings.warn(f"{without}: run one command at a time there", stacklevel=2)
            break
        lock.close()
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


@contextlib.contextmanager
def _writable(out: Path) -> Iterator[None]:
    """Says in one line that a folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out") from error
