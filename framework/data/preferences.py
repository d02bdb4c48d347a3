"""Preference pairs: sampled from a policy, labelled by gold, a stated share flipped.

On disk a pair set is one Parquet file in the field's preference format (`prompt`, `chosen`,
`rejected`) with the gold scores and the flip beside it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from framework.component import Component
from framework.errors import UserError
from framework.seeding import numpy_generator

SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("gold_chosen", pa.float64()),
        ("gold_rejected", pa.float64()),
        ("flipped", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt. `chosen` is what the (noisy) label says."""

    prompt: str
    chosen: str
    rejected: str
    gold_chosen: float
    gold_rejected: float
    flipped: bool


class Label(Component):
    """How pairs are sampled and labelled."""

    pairs: int = Field(default=5000, ge=2)
    """Pairs wanted; ties in gold are dropped and sampled anew."""
    noise: float = Field(default=0.25, ge=0, lt=0.5)
    """Share of labels flipped."""
    batch: int = Field(default=128, ge=1)
    """Prompts sampled at a time."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Tokens per response; None: as in training."""


def pair_up(
    prompts: Sequence[str], first: Sequence[str], second: Sequence[str],
    gold_first: Sequence[float], gold_second: Sequence[float], noise: float, seed: int,
) -> tuple[list[Pair], int]:  # fmt: skip
    """Labelled pairs, and how many ties were dropped. A flip is drawn per pair, from the seed."""
    flips = numpy_generator(seed, "flip").random(len(prompts)) < noise
    pairs, ties = [], 0
    for i, prompt in enumerate(prompts):
        if gold_first[i] == gold_second[i] or first[i] == second[i]:
            ties += 1
            continue
        first_wins = (gold_first[i] > gold_second[i]) != bool(flips[i])
        a, b = (first[i], gold_first[i]), (second[i], gold_second[i])
        (chosen, gold_chosen), (rejected, gold_rejected) = (a, b) if first_wins else (b, a)
        pairs.append(Pair(prompt, chosen, rejected, gold_chosen, gold_rejected, bool(flips[i])))
    return pairs, ties


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """One Parquet file in preference format."""
    pq.write_table(pa.Table.from_pylist([asdict(p) for p in pairs], schema=SCHEMA), path)


def read_pairs(path: Path) -> list[Pair]:
    """Pairs of a Parquet file; gold columns may be missing, text columns may not.

    Raises:
        UserError: no such file, a missing column, or a missing text, with file and row (from 1).
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: make pairs with `goldilocks label`")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet file ({str(error).splitlines()[0]})") from error
    for column in ("prompt", "chosen", "rejected"):
        if column not in table.column_names:
            raise UserError(f"{path} has no column {column!r}; it has {', '.join(table.column_names)}")
    pairs = []
    for row, record in enumerate(table.to_pylist(), start=1):
        for column in ("prompt", "chosen", "rejected"):
            if not isinstance(record[column], str):
                raise UserError(f"{path} row {row}: column {column!r} holds no text")
        pairs.append(
            Pair(
                record["prompt"],
                record["chosen"],
                record["rejected"],
                float(record.get("gold_chosen") or 0.0),
                float(record.get("gold_rejected") or 0.0),
                bool(record.get("flipped", False)),
            )
        )
    if not pairs:
        raise UserError(f"{path} holds no pairs")
    return pairs
