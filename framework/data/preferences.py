"""Preference pairs: sampled from a policy, labelled by gold, a stated share flipped, divided by a hash."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from framework.component import Component
from framework.data.conversations import Conversation, to_cell, turns_of
from framework.seeding import derive, numpy_generator

Split = Literal["train", "held_out"]
Divider = Literal["pair", "prompt"]
TEXTS = ("prompt", "chosen", "rejected")
_OTHERS = {
    "gold_chosen": "double", "gold_rejected": "double", "flipped": "bool", "chosen_ended": "bool",
    "rejected_ended": "bool", "split": "string", "margin": "double",
    "weight": "double", "target": "double",
}  # fmt: skip
"""Arrow's types of the columns beside the texts."""
_PLAIN = {b"goldilocks.prompts": b"text"}
KEY_MARK = "\x1f"
"""Between the texts of a key: the ASCII separator of units, which text does not hold."""
SPLITS: tuple[Split, ...] = ("train", "held_out")


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt. `chosen` is what the (noisy) label says."""

    prompt: str
    chosen: str
    rejected: str
    gold_chosen: float = math.nan
    """What gold says; nan where nobody knows."""
    gold_rejected: float = math.nan
    flipped: bool = False
    """Whether the label contradicts gold."""
    split: Split = "train"
    margin: float = 0.0
    """Score units that `chosen` must lead by."""
    weight: float = 1.0
    """Of the pair in the loss."""
    target: float = 1.0
    """Probability that `chosen` is the better one; below 1 is a soft label."""
    chosen_ended: bool = True
    """Whether the response ended by itself, and was not cut off at a limit."""
    rejected_ended: bool = True


class Label(Component):
    """How pairs are sampled, labelled and divided."""

    pairs: int = Field(default=5000, ge=2)
    """Pairs wanted; ties in gold are dropped and sampled anew."""
    samples_per_prompt: int = Field(default=2, ge=2)
    """Responses to a prompt at a time; every two of them make a pair."""
    noise: float = Field(default=0.25, ge=0, lt=0.5)
    """Share of labels flipped."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of pairs kept from the fit, for accuracy and calibration."""
    held_out_by: Divider = "pair"
    """What a hash divides: pairs, where prompts are few, or prompts, so that none is on both sides."""
    conversational: bool = False
    """Write texts as lists of {role, content}, as chat trainers want them, and not as strings."""
    batch: int = Field(default=128, ge=1)
    """Prompts sampled at a time."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Tokens per response; None: as in training."""

    @model_validator(mode="after")
    def _held_out_responses_are_not_trained_on(self) -> "Label":
        if self.samples_per_prompt > 2 and self.held_out_by == "pair":
            what = f"samples_per_prompt={self.samples_per_prompt} puts a response into several pairs"
            raise ValueError(f"{what}, and held-out ones would be trained on: set held_out_by=prompt")
        return self


def both_sides(pairs: Sequence[Pair]) -> tuple[list[str], list[str], list[bool]]:
    """Prompts, responses and whether these ended: those of the chosen responses, then those of the rejected ones."""
    texts = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    ended = [pair.chosen_ended for pair in pairs] + [pair.rejected_ended for pair in pairs]
    return [pair.prompt for pair in pairs] * 2, texts, ended


def divided_key(pair: Pair, by: Divider) -> str:
    """What stays on one side: the prompt, or the prompt with both responses, whichever of them is chosen."""
    return pair.prompt if by == "prompt" else KEY_MARK.join([pair.prompt, *sorted((pair.chosen, pair.rejected))])


def split_of(pair: Pair, held_out: float, by: Divider) -> Split:
    """The side of a pair: a hash of its text decides, so that it is the same in every run and file."""
    return "held_out" if _drawn(pair, by) < held_out * 1_000_000 else "train"


def divided(pairs: Sequence[Pair], held_out: float, by: Divider) -> list[Pair]:
    """The pairs with their split set by `split_of`, and enough held out to calibrate on."""
    return with_some_held_out([replace(pair, split=split_of(pair, held_out, by)) for pair in pairs], by)


def with_some_held_out(pairs: Sequence[Pair], by: Divider) -> list[Pair]:
    """The pairs; where chance held out fewer than two of a small set, those whose hashes are lowest are held out."""
    held = {divided_key(pair, by) for pair in pairs if pair.split == "held_out"}
    for pair in sorted(pairs, key=lambda pair: _drawn(pair, by)):
        if sum(divided_key(other, by) in held for other in pairs) >= 2:
            break
        held.add(divided_key(pair, by))
    return [replace(p, split="held_out") if divided_key(p, by) in held else p for p in pairs]


def _drawn(pair: Pair, by: Divider) -> int:
    return derive("pair-split", divided_key(pair, by)) % 1_000_000


def split_record(pairs: Sequence[Pair], by: Divider) -> dict[str, Any]:
    """Number and hash of the pairs on each side, for `splits.json`; a file's order or format does not change it."""
    sides = {split: [p for p in pairs if p.split == split] for split in SPLITS}
    keys = [{divided_key(pair, by) for pair in side} for side in sides.values()]
    assert keys[0].isdisjoint(keys[1]), f"a {by} is on both sides"
    record: dict[str, Any] = {"held_out_by": by}
    for split, side in sides.items():
        texts = sorted(json.dumps([pair.prompt, pair.chosen, pair.rejected]) for pair in side)
        record[f"{split}_pairs"] = len(side)
        record[f"{split}_sha256"] = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    return record


def pair_up(
    prompts: Sequence[str],
    responses: Sequence[Sequence[str]],
    gold: Sequence[Sequence[float]],
    noise: float,
    seed: int,
    ended: Sequence[Sequence[bool]] | None = None,
) -> tuple[list[Pair], dict[str, int]]:
    """Labelled pairs of every two responses to each prompt, and how many were dropped: `ties`, `identical`.

    All n(n-1)/2 pairs, as InstructGPT formed them from n ranked responses (arXiv 2203.02155). A flip is drawn
    per pair, from the seed, whether or not the pair is dropped. `ties` have one gold score and two texts.
    """
    couples = [(i, a, b) for i, few in enumerate(responses) for a, b in combinations(range(len(few)), 2)]
    flips = numpy_generator(seed, "flip").random(len(couples)) < noise
    pairs, dropped = [], {"ties": 0, "identical": 0}
    for (i, a, b), flip in zip(couples, flips.tolist(), strict=True):
        if responses[i][a] == responses[i][b]:
            dropped["identical"] += 1
            continue
        if gold[i][a] == gold[i][b]:
            dropped["ties"] += 1
            continue
        first_wins = (gold[i][a] > gold[i][b]) != flip
        won, lost = (a, b) if first_wins else (b, a)
        pair = Pair(prompts[i], responses[i][won], responses[i][lost], gold[i][won], gold[i][lost], flip)
        pairs.append(replace(pair, chosen_ended=ended[i][won], rejected_ended=ended[i][lost]) if ended else pair)
    return pairs, dropped


def write_pairs(path: Path, pairs: Sequence[Pair], conversational: bool = False) -> None:
    """One Parquet file in the field's preference format, texts as turns or as strings (a conversation as JSON)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})) if conversational else "string"
    schema = pa.schema(dict.fromkeys(TEXTS, text) | _OTHERS)
    if conversational and not any(isinstance(pair.prompt, Conversation) for pair in pairs):
        schema = schema.with_metadata(_PLAIN)
    rows = [asdict(pair) for pair in pairs]
    for row in rows:
        row["prompt"] = turns_of(row["prompt"]) if conversational else to_cell(row["prompt"])
        for name in ("chosen", "rejected") if conversational else ():
            row[name] = [{"role": "assistant", "content": row[name]}]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def holds_plain_text(path: Path) -> bool:
    """Whether the prompts of a file of `write_pairs` were text, though written as turns: nothing is put before a reply."""
    import pyarrow.parquet as pq

    return path.suffix == ".parquet" and (pq.read_schema(path).metadata or {}).keys() >= _PLAIN.keys()
