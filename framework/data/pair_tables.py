"""Preference pairs from a table of someone else's: which columns, what they may hold, what is left out.

Either layout is read: TRL's preference format (`prompt`, `chosen`, `rejected`, as strings or conversations, the
prompt also implicit), or `first`, `second` and a `label` that says which of the two is better.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from framework.data.conversations import NotTextError, Replies, answered, parse_cell, parted
from framework.data.preferences import (
    KEY_MARK,
    SPLITS,
    Divider,
    Pair,
    divided_key,
    split_of,
    with_some_held_out,
)
from framework.data.tables import TableSource, column_names, read_rows
from framework.errors import UserError

MAX_UNUSABLE = 0.05
"""Share of rows that may be dropped; above it the table is not what it seems to be."""

_NUMBERS: Final = {
    "margin": (0.0, math.inf),
    "weight": (0.0, math.inf),
    "target": (0.0, 1.0),
    "gold_chosen": (-math.inf, math.inf),
    "gold_rejected": (-math.inf, math.inf),
}
"""Smallest and largest value of each optional number."""
_OTHERS: Final = (*_NUMBERS, "flipped", "split")

Fault = Literal["identical", "empty", "parted"]


@dataclass(frozen=True)
class Trio:
    """A row's prompt and its two responses."""

    row: int
    """Its number in the table, from 1."""
    prompt: str
    chosen: str
    rejected: str
    others: Mapping[str, object]
    """The row's other columns that were asked for and exist; None or "" where a value is missing."""
    fault: Fault | None
    """identical or empty responses, or conversations that part before the last reply, which then are not given."""


@dataclass(frozen=True)
class PairCounts:
    """What became of a table's rows."""

    rows: int
    pairs: int
    held_out: int
    identical: int
    """Rows dropped because both responses are the same text."""
    empty: int
    """Rows dropped because a response has no text, and gold has not judged it either."""
    parted: int
    """Rows dropped because the conversations part before the last reply."""
    chosen_longer: float
    """Share of pairs whose chosen response has more characters."""

    def figures(self) -> dict[str, float]:
        """As a stage's manifest holds them."""
        return {name: float(value) for name, value in vars(self).items()}


def read_pair_table(
    source: TableSource, held_out: float = 0.1, held_out_by: Divider = "pair"
) -> tuple[list[Pair], PairCounts]:
    """The pairs of a table in its order, and what was dropped.

    A column `split` divides where it has a value, else the hash of `split_of`. Where both gold scores are known and
    `flipped` is not given, they decide it.

    Raises:
        UserError: a column, a text or a number that is not what it should be (file, row from 1, and column are
            named); more than 5% of rows unusable; the same pair, or by prompt the same prompt, on both sides.
    """
    trios = read_trios(source, _OTHERS)
    faults = Counter(trio.fault for trio in trios if trio.fault)
    _refuse_unusable(source, trios, faults)
    pairs: list[Pair] = []
    for trio in trios:
        if trio.fault:
            continue
        pair = _pair(source, trio)
        pairs.append(replace(pair, split=_split(source, trio) or split_of(pair, held_out, held_out_by)))
    if not any(_split(source, trio) for trio in trios):
        pairs = with_some_held_out(pairs, held_out_by)
    _refuse_overlap(source, pairs, held_out_by)
    counts = PairCounts(
        rows=len(trios),
        pairs=len(pairs),
        held_out=sum(pair.split == "held_out" for pair in pairs),
        identical=faults["identical"],
        empty=faults["empty"],
        parted=faults["parted"],
        chosen_longer=sum(len(pair.chosen) > len(pair.rejected) for pair in pairs) / len(pairs),
    )
    return pairs, counts


def read_trios(source: TableSource, others: Sequence[str] = ()) -> list[Trio]:
    """Every row's prompt, better and worse response, as text, with those of the `others` that exist.

    Raises:
        UserError: no known layout, a text that is missing or no text, an empty prompt, or a label that is
            neither 0 nor 1, `first` nor `second`, or always the same.
    """
    names = column_names(source)
    known = {name for name in (*_LAYOUTS, *others) if source.columns.get(name, name) in names}
    unknown = sorted(set(source.columns) - {*_LAYOUTS, *others})
    if unknown:
        raise UserError(
            f"{source.path}: columns maps {unknown[0]!r}, which a table of pairs has no use for; "
            f"it may hold {', '.join((*_LAYOUTS, *others))}"
        )
    labelled = not {"chosen", "rejected"} & known and bool({"first", "second"} & known)
    texts = ("first", "second") if labelled else ("chosen", "rejected")
    wanted = [*texts, *(["label"] if labelled else [])]
    # A column that was mapped is expected, even an optional one.
    wanted += [name for name in ("prompt", *others) if name in known or name in source.columns]
    rows = read_rows(source, wanted)
    if labelled:
        _refuse_one_sided(source, rows)
    return [_trio(source, number, values, texts) for number, values in rows]


_LAYOUTS: Final = ("prompt", "chosen", "rejected", "first", "second", "label")


def _trio(source: TableSource, row: int, values: dict[str, object], texts: tuple[str, str]) -> Trio:
    found = _replies(source, row, values, texts)
    others = {name: value for name, value in values.items() if name not in _LAYOUTS}
    if found is None:
        return Trio(row, "", "", "", others, "parted")
    prompt, *responses = found
    if not prompt.strip():
        raise _wrong(source, row, "prompt", "is empty; mend or drop the row")
    if "label" in values and _label(source, row, values["label"]):
        responses.reverse()
    chosen, rejected = responses
    fault: Fault | None = None
    if chosen == rejected:
        fault = "identical"
    elif not (chosen.strip() and rejected.strip()) and not _judged(others):
        fault = "empty"
    return Trio(row, prompt, chosen, rejected, others, fault)


def _judged(others: Mapping[str, object]) -> bool:
    """Whether gold has scored both responses: an empty one is then a sample, as `label` writes it, and no gap."""
    return all(isinstance(others.get(name), int | float) for name in ("gold_chosen", "gold_rejected"))


def _replies(
    source: TableSource, row: int, values: dict[str, object], texts: tuple[str, str]
) -> Replies | None:
    column = "prompt"
    try:
        prompt = parse_cell(values["prompt"]) if "prompt" in values else None
        cells = []
        for column in texts:
            cells.append(parse_cell(values[column]))
        column = texts[0]
        return parted(*cells) if prompt is None else answered(prompt, *cells)
    except NotTextError as error:
        raise _wrong(source, row, column, str(error)) from error


def _label(source: TableSource, row: int, value: object) -> int:
    """0 where the first response is better, 1 where the second is."""
    for side, names in enumerate((("0", "0.0", "first"), ("1", "1.0", "second"))):
        if str(value) in names:
            return side
    raise _wrong(
        source,
        row,
        "label",
        f"holds {value!r}; it is 0 or 'first' where the first is better, 1 or 'second' else",
    )


def _refuse_one_sided(source: TableSource, rows: Sequence[tuple[int, dict[str, object]]]) -> None:
    sides = {_label(source, row, values["label"]) for row, values in rows}
    if len(sides) == 1:
        better, worse = ("second", "first") if sides.pop() else ("first", "second")
        raise UserError(
            f"{source.path}: column {_theirs(source, 'label')!r} says {better!r} in all {len(rows)} rows: one-sided "
            f"labels tell nothing; if it is so, map columns: {{chosen: {_theirs(source, better)}, "
            f"rejected: {_theirs(source, worse)}}}"
        )


def _refuse_unusable(source: TableSource, trios: Sequence[Trio], faults: Counter[Fault]) -> None:
    bad = next((trio for trio in trios if trio.fault), None)
    if bad and (faults.total() > MAX_UNUSABLE * len(trios)):
        raise UserError(
            f"{source.path}: {faults.total()} of {len(trios)} rows are no pairs ({faults['identical']} with identical "
            f"responses, {faults['empty']} with an empty one, {faults['parted']} with conversations that part "
            f"before the last reply), the first in row {bad.row}: more than {MAX_UNUSABLE:.0%}; mend the table"
        )


def _refuse_overlap(source: TableSource, pairs: Sequence[Pair], by: Divider) -> None:
    sides = [{divided_key(pair, by) for pair in pairs if pair.split == split} for split in SPLITS]
    shared = sides[0] & sides[1]
    if shared:
        raise UserError(
            f"{source.path}: {len(shared)} of {len(sides[0] | sides[1])} {by}s are on both sides of column "
            f"{_theirs(source, 'split')!r}, for example {min(shared).split(KEY_MARK)[0][:40]!r}; mend it, or leave the column out"
        )


def _pair(source: TableSource, trio: Trio) -> Pair:
    """The row's pair, not yet divided."""
    numbers, flipped = _numbers(source, trio), _flipped(source, trio)
    gold_chosen, gold_rejected = (numbers.get(f"gold_{side}", math.nan) for side in ("chosen", "rejected"))
    return Pair(
        trio.prompt,
        trio.chosen,
        trio.rejected,
        gold_chosen=gold_chosen,
        gold_rejected=gold_rejected,
        flipped=gold_chosen < gold_rejected if flipped is None else flipped,
        margin=numbers.get("margin", 0.0),
        weight=numbers.get("weight", 1.0),
        target=numbers.get("target", 1.0),
    )


def _numbers(source: TableSource, trio: Trio) -> dict[str, float]:
    """The row's optional numbers, those that are there."""
    found: dict[str, float] = {}
    for name, (low, high) in _NUMBERS.items():
        value = trio.others.get(name)
        if value is None or value == "":
            continue
        number = _parsed(value)
        if number is not None and math.isnan(number) and name.startswith("gold"):
            continue  # our own way to write that gold is not known
        if number is None or not (math.isfinite(number) and low <= number <= high):
            span = (
                f"from {low:g} to {high:g}"
                if math.isfinite(high)
                else f"from {low:g}"
                if low == 0
                else "finite"
            )
            raise _wrong(source, trio.row, name, f"holds {value!r}; a number {span} is needed")
        found[name] = number
    return found


def _parsed(value: object) -> float | None:
    try:
        return None if isinstance(value, bool) else float(str(value))
    except ValueError:
        return None


def _flipped(source: TableSource, trio: Trio) -> bool | None:
    value = trio.others.get("flipped")
    if value is None or value == "":
        return None
    if str(value) not in ("0", "1", "False", "True", "false", "true"):
        raise _wrong(source, trio.row, "flipped", f"holds {value!r}; it is true or false")
    return str(value) in ("1", "True", "true")


def _split(source: TableSource, trio: Trio) -> Literal["train", "held_out"] | None:
    value = trio.others.get("split")
    if value is None or value == "":
        return None
    for split in SPLITS:
        if value == split:
            return split
    raise _wrong(source, trio.row, "split", f"holds {value!r}; it is one of {', '.join(SPLITS)}")


def _theirs(source: TableSource, name: str) -> str:
    return source.columns.get(name, name)


def _wrong(source: TableSource, row: int, name: str, what: str) -> UserError:
    return UserError(f"{source.path} row {row}: column {_theirs(source, name)!r} {what}")
