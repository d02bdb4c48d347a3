"""The stages before the online loop that fit models: the start policy, and the reward model.

Each stage is a folder with a manifest. A stage whose settings and inputs match what is there is not
run again; one whose folder holds something else says so.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from framework.artifacts import Artifact, fingerprint, write_manifest, writing
from framework.config import BESIDE_A_FIT, Config
from framework.data.paths import expand
from framework.data.prompts import PromptStream
from framework.ensembles import Full
from framework.models.causal import CausalPolicy, Pretrained
from framework.models.convert import to_plain
from framework.models.tokenizer import load_tokenizer
from framework.seeding import derive
from framework.training.policy_fit import Progress, fit_policy
from framework.training.reward_settings import FitReward
from framework.training.torch_engine import TorchEngine
from framework.worlds import Reviews
from jobs.artifact_stage import device, finished, made
from jobs.labelling import PAIRS_FILE, pairs_stage
from jobs.reward_job import QUALITY_FILE, RewardJob, Runner, fit_here, forget_parts
from jobs.workspace import Workspace


def policy_stage(cfg: Config, workspace: Workspace, progress: Progress | None = None) -> Artifact:
    """The start policy: built or loaded, fitted to the world's corpus, in plain Hugging Face layout."""
    settings = cfg.model_dump(mode="json", include={"seed", "world", "policy", "sft", "precision"})
    stage = fingerprint(settings, {})
    path = workspace.stage("policy", stage)
    done = finished(path, "policy", stage)
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
            policy.to(device())
            engine = TorchEngine(policy, cfg.sft.optimizer, cfg.sft.steps, cfg.native)
            corpus = cfg.world.corpus(cfg.seed)
            figures = fit_policy(policy, tokenizer, corpus, cfg.sft, engine, cfg.seed, progress)
        if cfg.sft.steps or not isinstance(cfg.policy, Pretrained):
            policy.cpu().save(scratch)
            tokenizer.save_pretrained(scratch)
        write_manifest(scratch, "policy", stage, {}, figures)
    return made(path, "policy")


def check_prompts(cfg: Config) -> None:
    """Refuse a world without prompts, or with an unreadable table, before anything is fitted.

    Raises:
        UserError: the file, row and column at fault.
    """
    for split in ("label", "train"):
        PromptStream(cfg.world.prompts(split), cfg.seed)


def reward_stage(
    cfg: Config,
    workspace: Workspace,
    policy: Artifact | None,
    pairs: Artifact,
    progress: Progress | None = None,
    run: Runner = fit_here,
) -> Artifact:
    """A reward model, fitted to the pairs by `run` and calibrated on held-out responses.

    Args:
        policy: where the encoder comes from, unless `fit_reward.encoder` names another.
    """
    settings = cfg.fit_reward
    source = settings.encoder
    if source is None:
        assert policy is not None
        source = str(policy.path)
    parents = {"pairs": pairs} if settings.encoder or policy is None else {"policy": policy, "pairs": pairs}
    stage = fingerprint(_reward_settings(cfg), parents)
    path = workspace.stage("reward", stage)
    done = finished(path, "reward", stage)
    if done:
        return done
    with writing(path) as scratch:
        job = RewardJob(
            settings=_placed(settings),
            source=_absolute(source),
            pairs=(pairs.path / PAIRS_FILE).resolve(),
            seed=cfg.seed,
            precision=cfg.native,
            rows=cfg.scorer_rows,
            out=scratch.resolve(),
            unfinished=path.with_name(f".{path.name}.unfinished").resolve(),
        )
        run(job, progress)
        figures = json.loads((scratch / QUALITY_FILE).read_text())["figures"]
        write_manifest(scratch, "reward", stage, parents, figures)
    forget_parts(job)
    return made(path, "reward")


def _reward_settings(cfg: Config) -> dict[str, Any]:
    """What decides a reward model, beside its inputs."""
    kept = cfg.fit_reward.model_dump(mode="json", exclude=BESIDE_A_FIT)
    return {"seed": cfg.seed, "precision": cfg.precision, "fit_reward": kept}


def reward_chain(
    cfg: Config,
    workspace: Workspace,
    stage: Callable[[str], Progress | None],
    run: Runner = fit_here,
) -> Artifact:
    """The reward model of a configuration, and the stages that it needs; `stage` is told each one's title.

    Own pairs and an encoder need no policy, and none is fitted.
    """
    own = cfg.fit_reward.pairs is not None and cfg.fit_reward.encoder is not None
    policy = None if own else policy_stage(cfg, workspace, stage("fit-policy"))
    pairs = pairs_stage(cfg, workspace, policy, stage("label"))
    return reward_stage(cfg, workspace, policy, pairs, stage("fit-reward"), run)


def _placed(settings: FitReward) -> FitReward:
    """The same settings with every path absolute."""
    tree = settings.model_dump()
    if settings.strength:
        tree["strength"]["model"] = _absolute(settings.strength.model)
    if isinstance(settings.ensemble, Full):
        tree["ensemble"]["published"] = [_absolute(place) for place in settings.ensemble.published]
    return FitReward.model_validate(tree)


def _absolute(place: str) -> str:
    """A folder's absolute path: a worker elsewhere has another current folder. A hub id stays what it is."""
    path = Path(expand(place))
    return str(path.resolve()) if path.exists() else str(path)
