"""Where the stages of an experiment put their folders."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from framework.artifacts import write_text
from framework.errors import UserError


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
    out = file.parent
    try:
        if file.exists():
            if not holds_same(file):
                raise UserError(
                    f"{out} holds a {what} of another configuration: choose another --out, or delete it"
                )
        elif out.exists() and any(out.iterdir()):
            raise UserError(f"{out} is not empty and holds no {what}: choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
        if not os.access(out, os.W_OK):
            raise UserError(f"cannot write {out}: permission denied; choose another --out")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out") from error
