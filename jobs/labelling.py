"""Pairs: sampled from the start policy, labelled by gold, a stated share flipped."""

import math
from pathlib import Path

import torch

from framework.artifacts import Artifact, fingerprint, write_manifest, writing
from framework.config import Config
from framework.data.preferences import Pair, divided, pair_up, write_pairs
from framework.data.prompts import PromptStream
from framework.errors import RunError
from framework.generation.sampler import SampleRequest, TorchSampler
from framework.models.causal import CausalPolicy
from framework.models.tokenizer import load_tokenizer
from framework.seeding import derive
from framework.training.policy_fit import Progress
from jobs.artifact_stage import device, finished, made
from jobs.workspace import Workspace

PAIRS_FILE = "pairs.parquet"


def pairs_stage(
    cfg: Config, workspace: Workspace, policy: Artifact, progress: Progress | None = None
) -> Artifact:
    """Pairs sampled from the start policy, labelled by gold, a stated share flipped."""
    include = {"seed", "world", "gold", "label", "max_new_tokens", "temperature", "instruction", "precision"}
    stage = fingerprint(cfg.model_dump(mode="json", include=include), {"policy": policy})
    path = workspace.stage("pairs", stage)
    done = finished(path, "pairs", stage)
    if done:
        return done
    with writing(path) as scratch:
        pairs, figures = sample_pairs(cfg, policy.path, progress)
        write_pairs(scratch / PAIRS_FILE, pairs, cfg.label.conversational)
        write_manifest(scratch, "pairs", stage, {"policy": policy}, figures)
    return made(path, "pairs")


def sample_pairs(
    cfg: Config, policy_folder: Path, progress: Progress | None = None
) -> tuple[list[Pair], dict[str, float]]:
    """`label.pairs` labelled pairs, and what was measured on the way."""
    dtype = torch.bfloat16 if cfg.native == "bfloat16" else torch.float32
    policy = CausalPolicy.load(policy_folder, dtype=dtype).to(device()).eval()
    seed = derive(cfg.seed, "label")
    limit, each = cfg.label.max_new_tokens or cfg.max_new_tokens, cfg.label.samples_per_prompt
    sampler = TorchSampler(
        policy, load_tokenizer(policy_folder), seed, limit, cfg.temperature, cfg.instruction
    )
    scorer = cfg.gold.build(device())
    stream = PromptStream(cfg.world.prompts("label"), seed)
    pairs: list[Pair] = []
    ties = step = 0
    golds: list[float] = []
    while len(pairs) < cfg.label.pairs:
        positions, prompts = stream.take(cfg.label.batch, at=step)
        rollout = sampler.sample(
            SampleRequest(
                prompts=prompts, positions=positions, samples_per_prompt=each, step=step, policy_version=0
            )
        )
        gold = scorer.score(rollout.prompts, rollout.responses).values.tolist()
        bad = next((i for i, value in enumerate(gold) if not math.isfinite(value)), None)
        if bad is not None:
            raise RunError(
                f"label: the gold score of {rollout.responses[bad][:40]!r} is {gold[bad]} at step {step}"
            )
        groups = range(0, len(gold), each)
        made_now, tied = pair_up(
            prompts,
            [rollout.responses[i : i + each] for i in groups],
            [gold[i : i + each] for i in groups],
            cfg.label.noise,
            derive(seed, step),
        )
        pairs, ties, step, golds = pairs + made_now, ties + tied, step + 1, golds + gold
        if ties > 20 * cfg.label.pairs:
            raise RunError(
                f"label: {ties} of {ties + len(pairs)} pairs are ties in gold: gold cannot tell these responses apart"
            )
        if progress:
            progress(min(len(pairs), cfg.label.pairs), cfg.label.pairs, {"ties": ties})
    pairs = divided(pairs[: cfg.label.pairs], cfg.label.held_out, cfg.label.held_out_by)
    values = torch.tensor(golds)
    figures = {
        "pairs": float(len(pairs)),
        "held_out": float(sum(p.split == "held_out" for p in pairs)),
        "flipped_share": sum(p.flipped for p in pairs) / len(pairs),
        "empty": float(sum(not p.chosen or not p.rejected for p in pairs)),
        "ties": float(ties),
        "gold_mean": float(values.mean()),
        "gold_std": float(values.std()),
    }
    return pairs, figures
