"""The stages before the online loop that fit models: the start policy, and the reward model.

Each stage is a folder with a manifest. A stage whose settings and inputs match what is there is not run again; one whose
folder holds something else says so.
"""

from pathlib import Path

from framework.artifacts import Artifact, fingerprint
from framework.config import Config
from framework.data.paths import absolute
from framework.data.prompts import PromptStream
from framework.ensembles import Full
from framework.errors import UserError
from framework.models.published import PublishedReward
from framework.models.reward_model import RewardModel
from framework.models.scorer_reward import ScorerReward
from framework.seeding import derive
from framework.training import Progress
from framework.training.reward_settings import FitReward
from jobs.artifact_stage import device, make_artifact, sampled, stage_folder, start_sampler, unfinished
from jobs.fit_job import PolicyJob, RewardJob, Runner, fit_here
from jobs.labelling import PAIRS_FILE

TOGETHER = 64
"""Reference responses that are sampled in one go. Fixed: it takes part in naming their random numbers."""


def policy_stage(cfg: Config, workspace: Path, progress: Progress | None = None, run: Runner = fit_here) -> Artifact:
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
            unfinished=unfinished(stage_folder(workspace, "policy", stage)),
        )
        return run(job, progress)

    return make_artifact(workspace, "policy", stage, {}, write)


def check_prompts(cfg: Config) -> None:
    """Refuse a world without prompts, or with an unreadable table, before anything is fitted."""
    for split in ("label", "train"):
        PromptStream(cfg.world.prompts(split), cfg.seed)


def reward_stage(
    cfg: Config,
    workspace: Path,
    policy: Artifact | None,
    pairs: Artifact,
    progress: Progress | None = None,
    run: Runner = fit_here,
) -> Artifact:
    """A reward model, fitted to the pairs by `run` and calibrated on held-out responses.

    The encoder comes from `policy`, unless `fit_reward.encoder` names another.
    """
    parents = {"pairs": pairs}
    if (source := cfg.fit_reward.encoder) is None:
        assert policy is not None
        source, parents = str(policy.path), {"policy": policy, "pairs": pairs}
    stage = fingerprint(cfg.chosen("seed", "precision", "fit_reward"), parents)

    def write(scratch: Path) -> dict[str, float]:
        job = RewardJob(
            settings=_placed(cfg.fit_reward),
            source=absolute(source),
            pairs=(pairs.path / PAIRS_FILE).resolve(),
            rows=cfg.scorer_rows,
            seed=cfg.seed,
            precision=cfg.native,
            out=scratch.resolve(),
            unfinished=unfinished(stage_folder(workspace, "reward", stage)),
        )
        return run(job, progress)

    return make_artifact(workspace, "reward", stage, parents, write)


def given_reward_stage(cfg: Config, workspace: Path, policy: Artifact, progress: Progress | None = None) -> Artifact:
    """A reward for which nothing is fitted, asked about `reference_texts` responses of the start policy.

    Published models are calibrated on them. A function or a judge is served as it is.
    """
    sampled = ("seed", "world", "max_new_tokens", "temperature", "instruction", "precision", "reference_texts")
    section = "fit_reward" if cfg.reward is None else "reward"
    parents, settings = {"policy": policy}, cfg.fit_reward

    def write(scratch: Path) -> dict[str, float]:
        if cfg.reward is None:
            assert isinstance(settings.ensemble, Full), settings.ensemble.kind
            members = [PublishedReward.from_published(place) for place in settings.ensemble.published]
            limit, words = min(member.max_tokens for member in members), [member.tokenizer for member in members]
            model = RewardModel(members, words, limit, rows=cfg.scorer_rows, precision=cfg.native).to(device())
        else:
            model = ScorerReward(cfg.reward, device())
        texts = _reference_texts(cfg, policy.path, progress)
        cut = model.calibrate(*texts, by_length=settings.length_calibration)
        if cut > settings.max_cut_share * cfg.reference_texts:
            raise UserError(
                f"{cut} of {cfg.reference_texts} reference texts are longer than the {model.max_tokens} tokens that a "
                "published model reads: lower max_new_tokens, or raise fit_reward.max_cut_share to accept the cut"
            )
        model.to("cpu").save(scratch)
        return {"reference_texts": float(cfg.reference_texts), "cut": float(cut)}

    stage = fingerprint(cfg.chosen(section, *sampled), parents)
    return make_artifact(workspace, "reward", stage, parents, write)


def _reference_texts(cfg: Config, policy: Path, progress: Progress | None) -> tuple[list[str], list[str], list[bool]]:
    """Prompts that pairs would be made of, a response of the start policy to each, and whether it ended by itself."""
    seed, wanted = derive(cfg.seed, "reference-texts"), cfg.reference_texts
    texts: list[tuple[str, str, bool]] = []
    sampler = start_sampler(cfg, policy, seed, cfg.max_new_tokens)
    stream = PromptStream(cfg.world.prompts("label"), seed)
    for step in range(-(-wanted // TOGETHER)):
        positions, few = stream.take(TOGETHER, at=step)
        rollout = sampled(sampler, few, positions, 1, step)
        texts += zip(few, rollout.responses, rollout.ended.tolist(), strict=True)
        if progress:
            progress(min(len(texts), wanted), wanted, {})
    prompts, responses, ended = zip(*texts[:wanted], strict=True)
    return list(prompts), list(responses), list(ended)


def _placed(settings: FitReward) -> FitReward:
    """The same settings with every path absolute."""
    tree = settings.model_dump()
    if settings.strength:
        tree["strength"]["model"] = absolute(settings.strength.model)
    if isinstance(settings.ensemble, Full):
        tree["ensemble"]["published"] = [absolute(place) for place in settings.ensemble.published]
    return FitReward.model_validate(tree)
