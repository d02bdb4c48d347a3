"""What every stage does around its work: look for a folder that these very settings made, and name the machine."""

from pathlib import Path

import torch

from framework.artifacts import Artifact, read_artifact
from framework.errors import UserError


def finished(path: Path, kind: str, stage: str) -> Artifact | None:
    """The artifact at `path` if these very settings made it, None where there is nothing of them.

    Raises:
        UserError: the folder holds something else.
    """
    found = read_artifact(path, kind)
    if found is None and path.exists() and any(path.iterdir()):
        raise UserError(f"{path} is not empty and is not a {kind} of ours: choose another --out")
    return found if found and found.fingerprint == stage else None


def made(path: Path, kind: str) -> Artifact:
    """The artifact that was just written to `path`."""
    found = read_artifact(path, kind)
    assert found is not None, path
    return found


def device() -> str:
    """Where a stage of this process computes."""
    return "cuda" if torch.cuda.is_available() else "cpu"
