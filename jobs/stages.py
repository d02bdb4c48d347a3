"""The stages before the online loop: the start policy, pairs, and the reward model.

Each stage is a folder with a manifest. A stage whose settings and inputs match what is there is not run again; one
whose folder holds something else says so.
"""

import json
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from framework.artifacts import Artifact, fingerprint
from framework.component import spelled
from framework.config import Config
from framework.data.pair_tables import FAULTS, read_pair_table
from framework.data.paths import absolute
from framework.data.preferences import Pair, divided, pair_up, split_record, write_pairs
from framework.data.prompts import PromptStream
from framework.ensembles import Full
from framework.errors import RunError, UserError
from framework.models.published import PublishedReward
from framework.models.reward_model import RewardModel
from framework.models.scorer_reward import ScorerReward
from framework.seeding import derive
from framework.training import Progress
from framework.training.reward_settings import FitReward
from jobs.artifact_stage import device, make_artifact, sampled, score_gold, stage_folder, start_sampler, unfinished
from jobs.fit_job import PolicyJob, RewardJob, Runner, fit_here

PAIRS_FILE, SPLITS_FILE = "pairs.parquet", "splits.json"
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


def pairs_stage(cfg: Config, workspace: Path, policy: Artifact | None, progress: Progress | None = None) -> Artifact:
    """Pairs to fit a reward model to, each on its side, with `splits.json` beside them.

    Sampled from the start policy, labelled by gold, a stated share flipped; with `fit_reward.pairs` the user's own,
    which neither policy nor seed changes.
    """
    own = cfg.fit_reward.pairs
    if own is None:
        assert policy is not None, "pairs are sampled from a policy"
        sections = ("seed", "world", "gold", "label", "max_new_tokens", "temperature", "instruction", "precision")
        settings, parents = cfg.chosen(*sections), {"policy": policy}
    else:
        label = cfg.label.model_dump(include={"held_out", "held_out_by", "conversational"})
        settings, parents = {"pairs": spelled(own), "label": label}, {}

    def write(scratch: Path) -> dict[str, float]:
        if own is None:
            pairs, figures = sample_pairs(cfg, parents["policy"].path, progress)
        else:
            pairs, figures = read_pair_table(own, cfg.label.held_out, cfg.label.held_out_by)
            if dropped := ", ".join(f"{figures[fault]:.0f} {fault}" for fault in FAULTS if figures[fault]):
                warnings.warn(f"{own.path}: left out of {figures['rows']:.0f} rows: {dropped}", stacklevel=2)
        write_pairs(scratch / PAIRS_FILE, pairs, cfg.label.conversational)
        splits = json.dumps(split_record(pairs, cfg.label.held_out_by), indent=2) + "\n"
        (scratch / SPLITS_FILE).write_text(splits, encoding="utf-8")
        return figures

    return make_artifact(workspace, "pairs", fingerprint(settings, parents), parents, write)


def sample_pairs(
    cfg: Config, policy_folder: Path, progress: Progress | None = None
) -> tuple[list[Pair], dict[str, float]]:
    """`label.pairs` labelled pairs, and figures; a RunError for gold that is not finite or tells hardly any apart."""
    seed, each = derive(cfg.seed, "label"), cfg.label.samples_per_prompt
    sampler = start_sampler(cfg, policy_folder, seed, cfg.label.max_new_tokens or cfg.max_new_tokens)
    scorer = cfg.gold.build(device())
    stream = PromptStream(cfg.world.prompts("label"), seed)
    pairs: list[Pair] = []
    golds: list[float] = []
    dropped: Counter[str] = Counter(ties=0, identical=0)
    step = 0
    while len(pairs) < cfg.label.pairs:
        positions, prompts = stream.take(cfg.label.batch, at=step)
        rollout = sampled(sampler, prompts, positions, each, step)
        gold = score_gold(scorer, rollout, "label").values.tolist()
        groups = [slice(i, i + each) for i in range(0, len(gold), each)]
        answers = [rollout.responses[group] for group in groups]
        ended, judged = ([values[group] for group in groups] for values in (rollout.ended.tolist(), gold))
        more, lost = pair_up(prompts, answers, judged, cfg.label.noise, derive(seed, step), ended)
        pairs, golds, step = pairs + more, golds + gold, step + 1
        dropped.update(lost)
        if dropped.total() > 20 * cfg.label.pairs:
            raise RunError(
                f"label: {dropped.total()} of {dropped.total() + len(pairs)} pairs are ties in gold "
                f"({dropped['identical']} are one text twice): gold cannot tell these responses apart"
            )
        if progress:
            progress(min(len(pairs), cfg.label.pairs), cfg.label.pairs, {"ties": dropped.total()})
    kept = divided(pairs[: cfg.label.pairs], cfg.label.held_out, cfg.label.held_out_by)
    return kept, _figures(kept, dropped, golds)


def _figures(pairs: Sequence[Pair], dropped: Counter[str], golds: Sequence[float]) -> dict[str, float]:
    """Counts of pairs and of what was dropped, the share of flips that was drawn, and gold over all samples."""
    values = torch.tensor(golds)
    return {
        "pairs": float(len(pairs)),
        "held_out": float(sum(pair.split == "held_out" for pair in pairs)),
        "ties": float(dropped["ties"]),
        "identical": float(dropped["identical"]),
        "empty": float(sum(not pair.chosen.strip() or not pair.rejected.strip() for pair in pairs)),
        "ended_share": sum(pair.chosen_ended + pair.rejected_ended for pair in pairs) / (2 * len(pairs)),
        "flipped_share": sum(pair.flipped for pair in pairs) / len(pairs),
        "gold_mean": float(values.mean()),
        "gold_std": float(values.std()),
    }


def reward_stage(
    cfg: Config,
    workspace: Path,
    policy: Artifact | None,
    pairs: Artifact,
    progress: Progress | None = None,
    run: Runner = fit_here,
) -> Artifact:
    """A reward model, fitted to the pairs by `run`; its encoder is the policy's, or that of `fit_reward.encoder`."""
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
