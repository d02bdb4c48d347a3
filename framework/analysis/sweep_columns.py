"""The columns of a sweep's table that say which row is which, and how those of a user's own table are read."""

import math
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from framework.errors import UserError

Optimiser = Literal["rl", "best_of_n"]
OPTIMISERS: tuple[Optimiser, ...] = ("rl", "best_of_n")
Status = Literal["finished", "stopped", "failed", "unfinished"]
COMPLETE = ("finished", "stopped")
"""Statuses of trials whose last steps stand for where the trial was going."""

LABELS: dict[str, Any] = {
    "trial": pa.string(),
    "method": pa.string(),
    "optimiser": pa.string(),
    "budget": pa.float64(),
    "seed": pa.int64(),
    "status": pa.string(),
}
"""The columns that say which trial a row is of. The swept settings follow, then `POSITION`, then the metrics."""
POSITION: dict[str, Any] = {"step": pa.int64(), "n": pa.int64()}
REQUIRED = ("trial", "method", "seed", "kl_nats", "gold")
DEFAULTS = {"optimiser": "rl", "budget": None, "status": "finished", "step": None, "n": None}
"""What a table from elsewhere may leave out, and what is then read there."""


def label_column(data: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    """A label or position column of the table from this file, of its type.

    Raises:
        UserError: a row lacks what every row must have, or has what cannot be.
    """
    kind, place = {**LABELS, **POSITION}[name], f"{path}: column {name}"
    if name not in data.column_names:
        return pa.chunked_array([pa.array([DEFAULTS[name]] * data.num_rows, kind)])
    column = cast_column(data[name], kind, place)
    if name == "budget":
        return _budgets(column, place)
    if name in ("trial", "method", "optimiser", "seed", "status") and column.null_count:
        raise UserError(
            f"{place}: {column.null_count} rows have no value; each row must say which trial it is of"
        )
    allowed = {"optimiser": OPTIMISERS, "status": get_args(Status)}.get(name)
    if allowed and (odd := set(column.to_pylist()) - set(allowed)):
        raise UserError(f"{place}: {sorted(odd)[0]!r} is none of {', '.join(allowed)}")
    return column


def _budgets(column: pa.ChunkedArray, place: str) -> pa.ChunkedArray:
    """Budgets that are numbers, or nothing: NaN stands for nothing where a table comes from pandas."""
    values = [None if value is None or math.isnan(value) else value for value in column.to_pylist()]
    if odd := [value for value in values if value is not None and not 0 < value < math.inf]:
        raise UserError(
            f"{place}: {odd[0]:g} is no budget; give nats per sequence above 0, or leave it empty"
        )
    return pa.chunked_array([pa.array(values, column.type)])


def cast_column(column: pa.ChunkedArray, kind: Any, place: str) -> pa.ChunkedArray:
    """The column as this type.

    Raises:
        UserError: it is none; `place` says where it was found.
    """
    try:
        return column.cast(kind)
    except pa.ArrowException as error:
        raise UserError(
            f"{place}: expected {kind}, found {column.type} ({str(error).splitlines()[0]})"
        ) from error
