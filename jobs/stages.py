"""The stages before the online loop that fit models: the start policy, and the reward model.

Each stage is a folder with a manifest. A stage whose settings and inputs match what is there is not
run again; one whose folder holds something else says so.
"""

from pathlib import Path

from framework.artifacts import Artifact, fingerprint
from framework.config import Config
from framework.data.paths import absolute
from framework.data.prompts import PromptStream
from framework.ensembles import Full
from framework.training import Progress
from framework.training.reward_settings import FitReward
from jobs.artifact_stage import make_artifact, unfinished
from jobs.fit_job import PolicyJob, RewardJob, Runner, fit_here
from jobs.labelling import PAIRS_FILE
from jobs.workspace import Workspace


def policy_stage(
    cfg: Config, workspace: Workspace, progress: Progress | None = None, run: Runner = fit_here
) -> Artifact:
    """The start policy in plain Hugging Face layout: made or loaded, then fitted to the world's corpus by `run`."""
    # Prompts are fitted as they are sampled from, so that the instruction matters to a fit, and to nothing else here.
    about_sft = ("instruction",) if cfg.sft.steps else ()
    stage = fingerprint(cfg.chosen("seed", "world", "policy", "sft", "precision", *about_sft), {})

    def write(scratch: Path) -> dict[str, float]:
        cfg.policy.write(scratch, cfg.world, cfg.seed)
        if not cfg.sft.steps:
            return {}
        job = PolicyJob(
            settings=cfg.sft,
            corpus=tuple(cfg.world.corpus(cfg.seed)),
            instruction=cfg.instruction,
            seed=cfg.seed,
            precision=cfg.native,
            out=scratch.resolve(),
            unfinished=unfinished(workspace.stage("policy", stage)),
        )
        return run(job, progress)

    return make_artifact(workspace, "policy", stage, {}, write)


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
    stage = fingerprint(cfg.chosen("seed", "precision", "fit_reward"), parents)

    def write(scratch: Path) -> dict[str, float]:
        job = RewardJob(
            settings=_placed(settings),
            source=absolute(source),
            pairs=(pairs.path / PAIRS_FILE).resolve(),
            rows=cfg.scorer_rows,
            seed=cfg.seed,
            precision=cfg.native,
            out=scratch.resolve(),
            unfinished=unfinished(workspace.stage("reward", stage)),
        )
        return run(job, progress)

    return make_artifact(workspace, "reward", stage, parents, write)


def _placed(settings: FitReward) -> FitReward:
    """The same settings with every path absolute."""
    tree = settings.model_dump()
    if settings.strength:
        tree["strength"]["model"] = absolute(settings.strength.model)
    if isinstance(settings.ensemble, Full):
        tree["ensemble"]["published"] = [absolute(place) for place in settings.ensemble.published]
    return FitReward.model_validate(tree)
