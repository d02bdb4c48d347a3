"""What stages share around their work: the folder that these very settings made, the start policy's sampler, the machine."""

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from framework.artifacts import MANIFEST, Artifact, hash_folder, read_artifact, write_manifest, writing
from framework.config import Config
from framework.errors import RunError, UserError
from framework.generation.sampler import SampleRequest, TorchSampler
from framework.models.causal import CausalPolicy
from framework.models.tokenizer import load_tokenizer
from framework.types import GoldScorer, Rollout, Scores


def make_artifact(
    workspace: Path,
    kind: str,
    stage: str,
    parents: Mapping[str, Artifact],
    write: Callable[[Path], Mapping[str, float]],
) -> Artifact:
    """The folder of a stage: as it is, if these very settings made it, or else made now.

    A UserError where the folder holds something else, or is not any more what was made.

    Args:
        stage: fingerprint of the settings and the parents.
        write: fills a scratch folder, and returns what it measured on the way.
    """
    path = stage_folder(workspace, kind, stage)
    found = read_artifact(path, kind)
    if found is None and path.exists() and any(path.iterdir()):
        raise UserError(f"{path} is not empty and is not a {kind} of ours: choose another --out")
    if found and found.fingerprint == stage:
        if hash_folder(path) != found.sha256:
            raise UserError(
                f"the {kind} at {path} is damaged or was edited: its files are not those that its {MANIFEST} has the hash of; "
                f"put them back, or delete {path}, and the same command makes it again"
            )
        return found
    with writing(path) as scratch:
        write_manifest(scratch, kind, stage, parents, write(scratch))
    shutil.rmtree(unfinished(path), ignore_errors=True)
    artifact = read_artifact(path, kind)
    assert artifact is not None, path
    return artifact


def stage_folder(workspace: Path, kind: str, stage: str) -> Path:
    """For example `policy-1f2e3d4c`: a stage is named by what made it, so variants that agree on it share it."""
    return workspace / f"{kind}-{stage[:8]}"


def unfinished(path: Path) -> Path:
    """Where a stage that is stopped keeps what it goes on from; gone once the stage is made."""
    return path.with_name(f".{path.name}.unfinished").resolve()


def start_sampler(cfg: Config, folder: Path, seed: int, max_new_tokens: int) -> TorchSampler:
    """A sampler of the start policy in `folder`, as the run samples but for its seed and its limit."""
    policy = CausalPolicy.load(folder, precision=cfg.native).to(device()).eval()
    return TorchSampler(policy, load_tokenizer(folder), seed, max_new_tokens, cfg.temperature, cfg.instruction)


def sampled(
    sampler: TorchSampler, prompts: tuple[str, ...], positions: tuple[int, ...], each: int, step: int
) -> Rollout:
    """`each` responses to every prompt; the positions and the step name their random numbers."""
    request = SampleRequest(prompts=prompts, positions=positions, samples_per_prompt=each, step=step, policy_version=0)
    return sampler.sample(request)


def score_gold(scorer: GoldScorer, rollout: Rollout, stage: str) -> Scores:
    """Gold of a rollout's responses; a RunError where a score is not finite."""
    gold = scorer.score(rollout.prompts, rollout.responses)
    for text, value in zip(rollout.responses, gold.values.tolist(), strict=True):
        if not math.isfinite(value):
            raise RunError(f"{stage}: the gold score of {text[:40]!r} is {value} at step {rollout.step}")
    return gold


def device() -> str:
    """Where a stage of this process computes."""
    return "cuda" if torch.cuda.is_available() else "cpu"
