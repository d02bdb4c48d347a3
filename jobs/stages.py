"""The stages before the online loop: fit a policy, sample and label pairs, fit a reward model.

Each stage is a folder with a manifest. A stage whose settings and inputs match what is there is not
run again; one whose folder holds something else says so.
"""

import math
from pathlib import Path

import torch

from framework.artifacts import Artifact, fingerprint, read_artifact, write_manifest, writing
from framework.config import Config
from framework.data.preferences import Pair, pair_up, read_pairs, write_pairs
from framework.data.prompts import PromptStream
from framework.errors import RunError, UserError
from framework.generation.sampler import SampleRequest, TorchSampler
from framework.models.causal import CausalPolicy, Pretrained
from framework.models.convert import to_plain
from framework.models.reward_ensemble import RewardEnsemble, load_encoder
from framework.models.tokenizer import load_tokenizer
from framework.seeding import derive
from framework.training.policy_fit import Progress, fit_policy
from framework.training.reward_fit import fit_reward, fit_steps
from framework.training.torch_engine import TorchEngine
from framework.worlds import Reviews
from jobs.workspace import Workspace

PAIRS_FILE = "pairs.parquet"


def policy_stage(cfg: Config, workspace: Workspace, progress: Progress | None = None) -> Artifact:
    """The start policy: built or loaded, fitted to the world's corpus, in plain Hugging Face layout."""
    settings = cfg.model_dump(mode="json", include={"seed", "world", "policy", "sft", "precision"})
    stage = fingerprint(settings, {})
    path = workspace.stage("policy", stage)
    done = _finished(path, "policy", stage)
    if done:
        return done
    torch.manual_seed(derive(cfg.seed, "policy") % 2**32)
    with writing(path) as scratch:
        if isinstance(cfg.policy, Pretrained):
            to_plain(cfg.policy.path, scratch, cfg.policy.gguf_file, cfg.policy.dtype)
            tokenizer = load_tokenizer(scratch)
            policy = CausalPolicy.load(scratch)
        else:
            assert isinstance(cfg.world, Reviews)  # Config sees to it
            tokenizer = cfg.world.tokenizer()
            model = cfg.policy.build(len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id)
            policy = CausalPolicy(model)
        figures: dict[str, float] = {}
        if cfg.sft.steps:
            policy.to(_device())
            engine = TorchEngine(policy, cfg.sft.optimizer, cfg.sft.steps, cfg.native)
            corpus = cfg.world.corpus(cfg.seed)
            figures = fit_policy(policy, tokenizer, corpus, cfg.sft, engine, cfg.seed, progress)
        if cfg.sft.steps or not isinstance(cfg.policy, Pretrained):
            policy.cpu().save(scratch)
            tokenizer.save_pretrained(scratch)
        write_manifest(scratch, "policy", stage, {}, figures)
    return _must(path, "policy")


def check_prompts(cfg: Config) -> None:
    """Refuse a world without prompts, or with an unreadable table, before anything is fitted.

    Raises:
        UserError: the file, row and column at fault.
    """
    for split in ("label", "train"):
        PromptStream(cfg.world.prompts(split), cfg.seed)


def pairs_stage(
    cfg: Config, workspace: Workspace, policy: Artifact, progress: Progress | None = None
) -> Artifact:
    """Pairs sampled from the start policy, labelled by gold, a stated share flipped."""
    include = {"seed", "world", "gold", "label", "max_new_tokens", "temperature", "instruction", "precision"}
    stage = fingerprint(cfg.model_dump(mode="json", include=include), {"policy": policy})
    path = workspace.stage("pairs", stage)
    done = _finished(path, "pairs", stage)
    if done:
        return done
    with writing(path) as scratch:
        pairs, figures = sample_pairs(cfg, policy.path, progress)
        write_pairs(scratch / PAIRS_FILE, pairs)
        write_manifest(scratch, "pairs", stage, {"policy": policy}, figures)
    return _must(path, "pairs")


def sample_pairs(
    cfg: Config, policy_folder: Path, progress: Progress | None = None
) -> tuple[list[Pair], dict[str, float]]:
    """`label.pairs` labelled pairs, and what was measured on the way."""
    dtype = torch.bfloat16 if cfg.native == "bfloat16" else torch.float32
    policy = CausalPolicy.load(policy_folder, dtype=dtype).to(_device()).eval()
    seed = derive(cfg.seed, "label")
    limit = cfg.label.max_new_tokens or cfg.max_new_tokens
    sampler = TorchSampler(
        policy, load_tokenizer(policy_folder), seed, limit, cfg.temperature, cfg.instruction
    )
    scorer = cfg.gold.build(_device())
    stream = PromptStream(cfg.world.prompts("label"), seed)
    pairs: list[Pair] = []
    ties = step = 0
    golds: list[float] = []
    while len(pairs) < cfg.label.pairs:
        positions, prompts = stream.take(cfg.label.batch, at=step)
        rollout = sampler.sample(
            SampleRequest(
                prompts=prompts, positions=positions, samples_per_prompt=2, step=step, policy_version=0
            )
        )
        gold = scorer.score(rollout.prompts, rollout.responses).values.tolist()
        bad = next((i for i, value in enumerate(gold) if not math.isfinite(value)), None)
        if bad is not None:
            raise RunError(
                f"label: the gold score of {rollout.responses[bad][:40]!r} is {gold[bad]} at step {step}"
            )
        first, second = rollout.responses[::2], rollout.responses[1::2]
        made, tied = pair_up(
            prompts, first, second, gold[::2], gold[1::2], cfg.label.noise, derive(seed, step)
        )
        pairs, ties, step, golds = pairs + made, ties + tied, step + 1, golds + gold
        if ties > 20 * cfg.label.pairs:
            raise RunError(
                f"label: {ties} of {ties + len(pairs)} pairs are ties in gold: gold cannot tell these responses apart"
            )
        if progress:
            progress(min(len(pairs), cfg.label.pairs), cfg.label.pairs, {"ties": ties})
    values = torch.tensor(golds)
    figures = {
        "pairs": float(cfg.label.pairs),
        "ties": float(ties),
        "gold_mean": float(values.mean()),
        "gold_std": float(values.std()),
    }
    return pairs[: cfg.label.pairs], figures


def reward_stage(
    cfg: Config, workspace: Workspace, policy: Artifact, pairs: Artifact, progress: Progress | None = None
) -> Artifact:
    """A reward model with K heads, fitted to the pairs and calibrated on held-out responses."""
    stage = fingerprint(
        cfg.model_dump(mode="json", include={"seed", "fit_reward", "precision"}),
        {"policy": policy, "pairs": pairs},
    )
    path = workspace.stage("reward", stage)
    done = _finished(path, "reward", stage)
    if done:
        return done
    settings = cfg.fit_reward
    source = settings.encoder or str(policy.path)
    torch.manual_seed(derive(cfg.seed, "reward") % 2**32)
    with writing(path) as scratch:
        tokenizer = load_tokenizer(source, needs_end=False)
        ensemble = RewardEnsemble(load_encoder(source), settings.heads, settings.init_scale).to(_device())
        if settings.freeze_encoder:
            ensemble.encoder.requires_grad_(False)
        labelled = read_pairs(pairs.path / PAIRS_FILE)
        steps = fit_steps(len(labelled), settings)
        engine = TorchEngine(ensemble, settings.optimizer, steps, cfg.native)
        figures = fit_reward(ensemble, tokenizer, labelled, settings, engine, cfg.seed, progress)
        ensemble.cpu().save(scratch)
        tokenizer.save_pretrained(scratch)
        write_manifest(scratch, "reward", stage, {"policy": policy, "pairs": pairs}, figures)
    return _must(path, "reward")


def _finished(path: Path, kind: str, stage: str) -> Artifact | None:
    """What is at `path` if these very settings made it."""
    found = read_artifact(path, kind)
    if found is None and path.exists() and any(path.iterdir()):
        raise UserError(f"{path} is not empty and is not a {kind} of ours: choose another --out")
    return found if found and found.fingerprint == stage else None


def _must(path: Path, kind: str) -> Artifact:
    found = read_artifact(path, kind)
    assert found is not None, path
    return found


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
