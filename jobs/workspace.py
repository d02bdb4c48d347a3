"""Where the stages of an experiment put their folders."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

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

    def train(self, name: str) -> Path:
        """The run folder of a variant."""
        return self.root / name / "train"


def claim(file: Path, text: str, what: str, holds_same: Callable[[Path], bool]) -> None:
    """Make the folder around `file` that of one study or sweep, by writing `text` there, or see that it is.

    Args:
        what: it is, in a word.
        holds_same: whether the `file` that is there means the same experiment.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    assert_free(file, what, holds_same)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(file.parent, error.strerror) from error
    if not os.access(file.parent, os.W_OK):
        raise _unwritable(file.parent, "permission denied")
    write_text(file, text)


def assert_free(file: Path, what: str, holds_same: Callable[[Path], bool]) -> None:
    """Refuse what `claim` refuses of a folder that is there, without writing anything.

    Raises:
        UserError: the folder holds something else, or cannot be read.
    """
    out = file.parent
    try:
        if file.exists():
            if not holds_same(file):
                raise UserError(
                    f"{out} holds a {what} of another configuration: choose another --out, or delete it"
                )
        elif out.exists() and any(path.name != LOCK_FILE for path in out.iterdir()):
            raise UserError(f"{out} is not empty and holds no {what}: choose another --out")
    except OSError as error:
        raise _unwritable(out, error.strerror) from error


@contextlib.contextmanager
def alone_in(out: Path, what: str) -> Iterator[None]:
    """Keeps other commands like this one out of a folder; the system lets go of it when this process ends, however.

    Raises:
        UserError: another one is at work there, or the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / LOCK_FILE).open("a+")
    except OSError as error:
        raise _unwritable(out, error.strerror) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"a {what} is running in {out} (pid {file.read().strip()}): wait for it, or end it"
            ) from None
        except OSError:  # a file system without locks
            pass
        try:
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        except OSError as error:
            raise _unwritable(out, error.strerror) from error
        yield


def _unwritable(out: Path, reason: str | None) -> UserError:
    return UserError(f"cannot write {out}: {reason}; choose another --out")
