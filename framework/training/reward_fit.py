"""The fit of a reward model from pairs to a calibrated model and what it is worth on held-out pairs."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from framework.analysis.reward_quality import compare, disagreement, head_correlation, held_out_quality
from framework.data.augment import augment
from framework.data.conversations import from_cell
from framework.data.pair_tables import truth_of
from framework.data.preferences import Pair, both_sides
from framework.data.tables import TableSource, column_names, read_rows
from framework.errors import UserError
from framework.models.encoders import reads_and_takes
from framework.models.encoding import Ended
from framework.models.huggingface import HfTokenizer
from framework.models.published import PublishedReward
from framework.models.reward_heads import RewardHeads
from framework.models.reward_model import RewardModel
from framework.models.tokenizer import load_tokenizer
from framework.seeding import numpy_generator
from framework.training.data_parallel import Shard
from framework.training.fit import FitSetting, assert_divides
from framework.training.preference_strength import apply_strength
from framework.training.reward_fitter import RewardFitter, encode_pairs, refuse_cut
from framework.training.reward_settings import FitReward

CLOUD_PAIRS = 256
"""Training pairs whose two texts make the feature clouds: a forward pass over 512 texts costs little beside a fit."""


def fit_reward(
    settings: FitReward, source: str, pairs: Sequence[Pair], setting: FitSetting, rows: int = 32
) -> tuple[RewardModel, dict[str, float], dict[str, Any]]:
    """The fitted and calibrated model, its figures, and its held-out quality in full.

    In a fit over several processes all come to the same model; only the first need write it.

    Args:
        source: folder or hub id of the encoder.
        rows: texts per forward pass when scoring.

    Raises:
        UserError: fewer training pairs than one batch, no held-out pairs, too many texts to be cut, or no weight.
        RunError: a loss or a gradient that is not finite.
    """
    tokenizer = load_tokenizer(source, needs_end=False)
    kept = _told_apart(settings, source, tokenizer, pairs)
    train, held = split_pairs(kept)
    train, counted = prepare_pairs(train, settings, setting, rows)
    _check_size(settings, train, setting.shard)
    fitter = RewardFitter(settings, source, tokenizer, train, setting)
    members = settings.ensemble.fit(fitter)
    for member in members:
        if settings.odin and isinstance(member, RewardHeads):
            member.keep_heads(member.num_heads // 2)
    tokenizers = [m.tokenizer if isinstance(m, PublishedReward) else tokenizer for m in members]
    model = RewardModel(members, tokenizers, settings.max_tokens, rows=rows, precision=setting.precision)
    model.to(setting.device)
    cut = model.calibrate(*both_sides(held), by_length=settings.length_calibration)
    refuse_cut(cut, 2 * len(held), settings, "held-out texts")
    drawn = numpy_generator(setting.seed, "feature-cloud").permutation(len(train))[:CLOUD_PAIRS]
    model.fit_clouds(*both_sides([train[int(i)] for i in drawn]))
    counted |= {"identical_to_encoder": float(len(pairs) - len(kept))}
    counted |= {"cut_training": float(fitter.pairs.num_cut), "cut_held_out": float(cut)}
    figures, quality = measure(model, held)
    losses = {"loss": float(np.mean(fitter.losses))} if fitter.losses else {}
    return model, losses | counted | figures, quality


def _told_apart(settings: FitReward, source: str, tokenizer: HfTokenizer, pairs: Sequence[Pair]) -> Sequence[Pair]:
    """The pairs whose responses the encoder can tell apart: an uncased tokenizer, or a cut, can make them one text."""
    if not settings.ensemble.parts():
        return pairs  # no encoder is fitted
    any_cut = settings.model_copy(update={"max_cut_share": 1.0})
    encoded = encode_pairs(tokenizer, pairs, any_cut, reads_and_takes(source)[0])
    both = zip(pairs, encoded.chosen, encoded.rejected, strict=True)
    kept = [pair for pair, chosen, rejected in both if chosen != rejected]
    if len(kept) < len(pairs):
        lost = len(pairs) - len(kept)
        what = f"{lost} of {len(pairs)} pairs are one text to the encoder, as its tokenizer writes them"
        if {pair.split for pair in kept} != {pair.split for pair in pairs}:
            raise UserError(f"{what}, and too few are left: give pairs that differ in more than case or blanks")
        warnings.warn(f"{what}, and are left out", stacklevel=3)
    return kept


def split_pairs(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Training and held-out pairs, as each pair says; a `UserError` where there are too few of either."""
    train = [p for p in pairs if p.split == "train"]
    held = [p for p in pairs if p.split == "held_out"]
    if len(held) < 2 or not train:
        raise UserError(
            f"{len(train)} training and {len(held)} held-out pairs: a fit needs some, and 2 held-out ones to "
            "calibrate on; give more pairs, or raise label.held_out"
        )
    return train, held


def prepare_pairs(
    train: Sequence[Pair], settings: FitReward, setting: FitSetting, rows: int = 32
) -> tuple[list[Pair], dict[str, float]]:
    """The pairs that are trained on, after `strength` and `augment`, with how many were changed or added."""
    counted: dict[str, float] = {}
    pairs = list(train)
    if settings.strength:
        judge = RewardModel.load(settings.strength.model, setting.device, rows=rows)
        # Raw scores: their differences are log-odds, which is what targets and margins are made of.
        read = judge.read(*both_sides(pairs))
        refuse_cut(read.num_cut, 2 * len(pairs), settings, "texts for fit_reward.strength")
        won, lost = read.values.split(len(pairs), dim=1)
        pairs, changed = apply_strength(pairs, (won - lost).mean(dim=0).numpy(), settings.strength)
        counted |= {f"strength_{name}": float(count) for name, count in changed.items()}
    if settings.augment:
        pairs, added = augment(pairs, settings.augment.share, setting.seed)
        counted |= {f"augmented_{name}": float(count) for name, count in added.items()}
    return pairs, counted | {"training_pairs": float(len(pairs))}


def measure(model: RewardModel, held: Sequence[Pair]) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures on held-out pairs: those that are one number, and all of them."""
    prompts, responses, ended = both_sides(held)
    scores = model.read(prompts, responses, ended).values
    raw = scores.split(len(held), dim=1)
    served = model.calibrated(scores, responses).split(len(held), dim=1)
    known = all(np.isfinite([p.gold_chosen, p.gold_rejected]).all() for p in held)
    target = np.array([p.target for p in held])
    flipped = np.array([p.flipped for p in held]) if known else None
    # sigmoid(lead) is a probability for raw scores alone; who is right is asked of the scores that are served.
    quality = held_out_quality(raw[0].numpy(), raw[1].numpy(), target, flipped)
    right = held_out_quality(served[0].numpy(), served[1].numpy(), target, flipped)
    quality |= {name: value for name, value in right.items() if "accuracy" in name}
    reference = model.reference.scores.numpy()
    quality |= {"head_correlation": head_correlation(reference), "disagreement": disagreement(reference)}
    quality["held_out_pairs"] = len(held)
    return {name: float(value) for name, value in quality.items() if isinstance(value, int | float)}, quality


def policy_responses(source: TableSource) -> tuple[list[str], list[str], list[bool]]:
    """Prompts and responses of a table, and whether each ended by itself: as a column `ended` says, else all did.

    A policy may say nothing, so a response may be empty. A `UserError` where there is no such table or column, a value is
    no text, or an `ended` is neither true nor false.
    """
    texts = ("prompt", "response")
    rows = read_rows(source, [*texts, *(["ended"] if source.theirs("ended") in column_names(source) else [])])
    for number, row in rows:
        for name in texts:
            if not isinstance(row[name], str):
                raise UserError(f"{source.path} row {number}: column {name!r} holds no text; mend or drop the row")
    ended = [truth_of(source, number, "ended", row.get("ended", True)) for number, row in rows]
    return [from_cell(str(row["prompt"])) for _, row in rows], [str(row["response"]) for _, row in rows], ended


def compare_on(
    model: RewardModel, prompts: Sequence[str], responses: Sequence[str], ended: Ended = None
) -> dict[str, float | None]:
    """How the heads agree on a policy's responses beside the reference responses, and how many were cut or empty."""
    scored = model.score(prompts, responses, ended)
    return compare(model.reference.scores.numpy(), scored.values.numpy()) | {
        "responses": float(len(responses)),
        "empty": float(sum(not response.strip() for response in responses)),
        "cut": float(scored.num_cut),
    }


def _check_size(settings: FitReward, train: Sequence[Pair], shard: Shard) -> None:
    bounds = [[round(share * len(train)) for share in part.pairs] for part in settings.ensemble.parts().values()]
    fewest = min((stop - start for start, stop in bounds), default=len(train))
    if bounds and fewest < settings.batch:
        raise UserError(
            f"{fewest} training pairs are fewer than fit_reward.batch={settings.batch}: "
            "give more pairs (label.pairs) or lower the batch"
        )
    if not any(p.weight > 0 for p in train):
        raise UserError("every training pair has weight 0: there is nothing to fit; mend the column `weight`")
    assert_divides("fit_reward", settings.batch, shard)
    longer = [len(p.chosen) > len(p.rejected) for p in train if len(p.chosen) != len(p.rejected)]
    most = max(sum(longer), len(longer) - sum(longer))
    if len(longer) > 50 and most > 0.9 * len(longer):
        side = "longer" if sum(longer) == most else "shorter"
        warnings.warn(
            f"the chosen response is the {side} one in {most} of {len(longer)} pairs: the model may learn length alone; "
            "see fit_reward.odin and fit_reward.length_calibration",
            stacklevel=2,
        )
