"""Pairs: sampled from the start policy and labelled by gold, or a table of the user's own."""

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
from framework.data.preferences import Pair, divided, pair_up, split_record, write_pairs
from framework.data.prompts import PromptStream
from framework.errors import RunError
from framework.seeding import derive
from framework.training import Progress
from jobs.artifact_stage import device, make_artifact, sampled, score_gold, start_sampler

PAIRS_FILE = "pairs.parquet"
SPLITS_FILE = "splits.json"


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
    """`label.pairs` labelled pairs, and what was measured on the way.

    A RunError for a gold score that is not finite, or gold that can tell almost no responses apart.
    """
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
