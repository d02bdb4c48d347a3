"""Preference pairs from a table of someone else's, in a layout of docs/data.md: what it may hold, what is left out."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal

from framework.data.conversations import NotTextError, Replies, answered, parse_cell, parse_prompt, parted
from framework.data.preferences import (
    KEY_MARK,
    SPLITS,
    Divider,
    Pair,
    Split,
    divided_key,
    holds_plain_text,
    split_of,
    with_some_held_out,
)
from framework.data.tables import TableSource, column_names, read_rows
from framework.errors import UserError

MAX_UNUSABLE = 0.05
"""Share of rows that may be dropped; above it the table is not what it seems to be."""

_NUMBERS: Final = {
    "margin": (0.0, math.inf), "weight": (0.0, math.inf), "target": (0.0, 1.0),
    "gold_chosen": (-math.inf, math.inf), "gold_rejected": (-math.inf, math.inf),
}  # fmt: skip
"""Smallest and largest value of each optional number."""
_TRUTHS: Final = ("flipped", "chosen_ended", "rejected_ended")
_OTHERS: Final = (*_NUMBERS, *_TRUTHS, "split")

Fault = Literal["identical", "empty", "parted"]
FAULTS: Final[tuple[Fault, ...]] = ("identical", "empty", "parted")


@dataclass(frozen=True)
class PairRow:
    """A row's prompt and its two responses."""

    number: int
    """Of the row in the table, from 1; a row of several responses makes several pairs."""
    prompt: str
    chosen: str
    rejected: str
    others: Mapping[str, object]
    """The row's other columns that were asked for and exist; None where a value is missing."""
    fault: Fault | None
    """identical or empty responses, or conversations that part before the last reply, which then are not given."""


def read_pair_table(
    source: TableSource, held_out: float = 0.1, held_out_by: Divider = "pair"
) -> tuple[list[Pair], dict[str, float]]:
    """The pairs of a table in its order, and what became of its rows, as a stage's manifest holds it.

    A column `split` divides where it has a value, else the hash of `split_of`; pairs that share a row, and with it a
    response, are divided by prompt. Where both gold scores are known and `flipped` is not given, they decide it.
    Dropped rows are counted by `Fault`; `chosen_longer`: the share of pairs whose chosen response has more characters.

    Raises:
        UserError: a column, a text or a number that is not what it should be (file, row from 1, and column are named);
            more than 5% of rows unusable; the same pair, or by prompt the same prompt, on both sides.
    """
    rows = read_pair_rows(source, _OTHERS)
    faults = Counter(row.fault for row in rows if row.fault)
    _refuse_unusable(source, rows, faults)
    if len({row.number for row in rows}) < len(rows):
        held_out_by = "prompt"
    pairs: list[Pair] = []
    for row in rows:
        if not row.fault:
            pair = _pair(source, row)
            pairs.append(replace(pair, split=_split(source, row) or split_of(pair, held_out, held_out_by)))
    if not any(_split(source, row) for row in rows):
        pairs = with_some_held_out(pairs, held_out_by)
    _refuse_overlap(source, pairs, held_out_by)
    counts: dict[str, float] = {
        "rows": len(rows),
        "pairs": len(pairs),
        "held_out": sum(pair.split == "held_out" for pair in pairs),
        **{fault: faults[fault] for fault in FAULTS},
        "chosen_longer": sum(len(pair.chosen) > len(pair.rejected) for pair in pairs) / len(pairs),
    }
    return pairs, {name: float(count) for name, count in counts.items()}


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a file that `write_pairs` wrote, or of any table with its columns; raises as `read_pair_table`."""
    pairs = read_pair_table(TableSource(path=str(path)))[0]
    return [replace(pair, prompt=str(pair.prompt)) for pair in pairs] if holds_plain_text(path) else pairs


def read_pair_rows(source: TableSource, others: Sequence[str] = ()) -> list[PairRow]:
    """Every row's prompt, better and worse response, as text, with those of the `others` that exist.

    Raises:
        UserError: no known layout, a text that is missing or no text, an empty prompt, a label unknown or one-sided.
    """
    names = column_names(source)
    known = {name for name in (*_LAYOUTS, *others) if source.theirs(name) in names}
    unknown = sorted(set(source.columns) - {*_LAYOUTS, *others})
    if unknown:
        what = f"columns maps {unknown[0]!r}, which a table of pairs has no use for"
        raise UserError(f"{source.path}: {what}; it may hold {', '.join((*_LAYOUTS, *others))}")
    labelled = not {"chosen", "rejected"} & known and bool({"first", "second"} & known)
    texts = ("first", "second") if labelled else ("chosen", "rejected")
    # A column that was mapped is expected, even an optional one.
    more = [name for name in ("prompt", *others) if name in known or name in source.columns]
    rows = read_rows(source, [*texts, *(["label"] if labelled else []), *more])
    if labelled:
        _refuse_one_sided(source, rows)
    return [_pair_row(source, number, one, texts) for number, values in rows for one in _each(values, texts)]


_LAYOUTS: Final = ("prompt", "chosen", "rejected", "first", "second", "label")


def _each(values: dict[str, object], texts: tuple[str, str]) -> list[dict[str, object]]:
    """The row once for every two responses: a cell may list several, which no turn is."""
    cells = [values[name] for name in texts]
    lists = [c if isinstance(c, list) and c and not isinstance(c[0], dict) else [c] for c in cells]
    return [values | dict(zip(texts, both, strict=True)) for both in product(*lists)]


def _pair_row(source: TableSource, row: int, values: dict[str, object], texts: tuple[str, str]) -> PairRow:
    found = _replies(source, row, values, texts)
    others = {name: None if value == "" else value for name, value in values.items() if name not in _LAYOUTS}
    if found is None:
        return PairRow(row, "", "", "", others, "parted")
    prompt, *responses = found
    if not prompt.strip():
        raise source.wrong(row, "prompt", "is empty; mend or drop the row")
    if "label" in values and _label(source, row, values["label"]):
        responses.reverse()
    chosen, rejected = responses
    # An empty response that gold has scored is a sample, as `label` writes it, and no gap.
    judged = all(isinstance(others.get(f"gold_{side}"), int | float) for side in ("chosen", "rejected"))
    is_gap = not (chosen.strip() and rejected.strip()) and not judged
    fault: Fault | None = "identical" if chosen == rejected else "empty" if is_gap else None
    return PairRow(row, prompt, chosen, rejected, others, fault)


def _replies(source: TableSource, row: int, values: dict[str, object], texts: tuple[str, str]) -> Replies | None:
    column = "prompt"
    try:
        prompt = parse_prompt(values["prompt"]) if "prompt" in values else None
        cells = []
        for column in texts:
            cells.append(parse_cell(values[column]))
        column = texts[0]
        return parted(*cells) if prompt is None else answered(prompt, *cells)
    except NotTextError as error:
        raise source.wrong(row, column, str(error)) from error


def _label(source: TableSource, row: int, value: object) -> int:
    """0 where the first response is better, 1 where the second is."""
    for side, names in enumerate((("0", "0.0", "first"), ("1", "1.0", "second"))):
        if str(value) in names:
            return side
    what = f"holds {value!r}; it is 0 or 'first' where the first is better, 1 or 'second' else"
    raise source.wrong(row, "label", what)


def _refuse_one_sided(source: TableSource, rows: Sequence[tuple[int, dict[str, object]]]) -> None:
    sides = {_label(source, row, values["label"]) for row, values in rows}
    if len(sides) == 1:
        better, worse = ("second", "first") if sides.pop() else ("first", "second")
        raise UserError(
            f"{source.path}: column {source.theirs('label')!r} says {better!r} in all {len(rows)} rows: one-sided "
            f"labels tell nothing; if it is so, map columns: {{chosen: {source.theirs(better)}, "
            f"rejected: {source.theirs(worse)}}}"
        )


def _refuse_unusable(source: TableSource, rows: Sequence[PairRow], faults: Counter[Fault]) -> None:
    bad = next((row for row in rows if row.fault), None)
    if bad and faults.total() > MAX_UNUSABLE * len(rows):
        raise UserError(
            f"{source.path}: {faults.total()} of {len(rows)} rows are no pairs ({faults['identical']} with identical "
            f"responses, {faults['empty']} with an empty one, {faults['parted']} with conversations that part "
            f"before the last reply), the first in row {bad.number}: more than {MAX_UNUSABLE:.0%}; mend the table"
        )


def _refuse_overlap(source: TableSource, pairs: Sequence[Pair], by: Divider) -> None:
    sides = [{divided_key(pair, by) for pair in pairs if pair.split == split} for split in SPLITS]
    if shared := sides[0] & sides[1]:
        where = f"column {source.theirs('split')!r}, for example {min(shared).split(KEY_MARK)[0][:40]!r}"
        what = f"{len(shared)} of {len(sides[0] | sides[1])} {by}s are on both sides of {where}"
        raise UserError(f"{source.path}: {what}; mend it, or leave the column out")


def _pair(source: TableSource, row: PairRow) -> Pair:
    """The row's pair, not yet divided."""
    numbers: dict[str, Any] = _numbers(source, row)
    pair = Pair(row.prompt, row.chosen, row.rejected, **numbers)
    given = {name: row.others[name] for name in _TRUTHS if row.others.get(name) is not None}
    truths: dict[str, Any] = {name: truth_of(source, row.number, name, value) for name, value in given.items()}
    return replace(pair, **{"flipped": pair.gold_chosen < pair.gold_rejected} | truths)


def truth_of(source: TableSource, row: int, name: str, value: object) -> bool:
    """Whether a cell says yes; a `UserError` that names file, row and column where it says neither."""
    if str(value).lower() not in ("0", "1", "false", "true"):
        raise source.wrong(row, name, f"holds {value!r}; it is true or false")
    return str(value).lower() in ("1", "true")


def _numbers(source: TableSource, row: PairRow) -> dict[str, float]:
    """The row's optional numbers, those that are there."""
    found: dict[str, float] = {}
    for name, (low, high) in _NUMBERS.items():
        value = row.others.get(name)
        if value is None:
            continue
        try:
            number = float(str(value))  # of True this makes no number
        except ValueError:
            number = math.inf
        if math.isnan(number) and name.startswith("gold"):
            continue  # our own way to write that gold is not known
        if not (math.isfinite(number) and low <= number <= high):
            span = "finite" if low < 0 else f"from {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise source.wrong(row.number, name, f"holds {value!r}; a number {span} is needed")
        found[name] = number
    return found


def _split(source: TableSource, row: PairRow) -> Split | None:
    value: Any = row.others.get("split")
    if value is not None and value not in SPLITS:
        raise source.wrong(row.number, "split", f"holds {value!r}; it is one of {', '.join(SPLITS)}")
    return value
