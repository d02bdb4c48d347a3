"""What stages share around their work: the folder that these very settings made, the start policy's sampler, the machine."""

from pathlib import Path

import torch

from framework.artifacts import Artifact, read_artifact
from framework.config import Config
from framework.errors import UserError
from framework.generation.sampler import TorchSampler
from framework.models.causal import CausalPolicy
from framework.models.tokenizer import load_tokenizer


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


def start_sampler(cfg: Config, folder: Path, seed: int, max_new_tokens: int) -> TorchSampler:
    """A sampler of the start policy in `folder`, as the run samples but for its seed and its limit."""
    dtype = torch.bfloat16 if cfg.native == "bfloat16" else torch.float32
    policy = CausalPolicy.load(folder, dtype=dtype).to(device()).eval()
    return TorchSampler(
        policy, load_tokenizer(folder), seed, max_new_tokens, cfg.temperature, cfg.instruction
    )


def device() -> str:
    """Where a stage of this process computes."""
    return "cuda" if torch.cuda.is_available() else "cpu"
