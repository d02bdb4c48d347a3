"""The columns of the table of runs: how they are put together, and how those of a user's own table are read."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from framework.analysis.records import RunRecord, Status, is_number
from framework.errors import UserError, first_line

BEST_OF_N = "best_of_n"
"""The method of rows that are not of a run, but of its reward on a pool of the start policy's responses."""

LABELS: dict[str, Any] = {
    "run": pa.string(), "curve": pa.string(), "condition": pa.string(), "variant": pa.string(), "point": pa.string(),
    "seed": pa.int64(), "method": pa.string(), "budget": pa.float64(), "status": pa.string(),
}  # fmt: skip
"""The columns that say which run a row is of. The swept settings follow, then `POSITION`, then the metrics."""
POSITION: dict[str, Any] = {"axis": pa.string(), "at": pa.float64()}
"""What orders the rows of a run (`step`, `epoch`, `stage`, or `n` of best-of-n), and where on it the row is."""
SETTINGS_KEY = b"goldilocks.settings"
"""In the file's metadata: the names of the columns that are swept settings, as a JSON list."""
REQUIRED = ("run", "seed", "kl_nats", "gold")
DEFAULTS = {
    "curve": "all", "condition": "", "variant": "", "point": "", "method": "online", "budget": None,
    "status": "finished", "axis": "step", "at": None,
}  # fmt: skip
"""What a table from elsewhere may leave out, and what is then read there."""
Part = tuple[RunRecord, Mapping[str, np.ndarray]]
"""One curve on its way into the table: whose it is, and its columns, `at` first."""


def assemble(parts: Sequence[Part]) -> tuple[pa.Table, tuple[str, ...]]:
    """The rows of these curves one after the other, and the columns that are swept settings."""
    records = [record for record, _ in parts]
    metrics = dict.fromkeys(name for _, own in parts for name in own if name not in {"at", "gap"})
    taken = {*LABELS, *POSITION, *metrics, "gap"}
    keys = dict.fromkeys(key for record in records for key in record.settings)
    # A section of the configuration may have a metric's name, as `gold` has.
    settings = {f"settings.{key}" if key in taken else key: key for key in keys}
    counts = [len(own["at"]) for _, own in parts]
    owner = pa.array(np.repeat(np.arange(len(parts)), counts))
    labels = {name: pa.array([getattr(r, name) for r in records], kind) for name, kind in LABELS.items()}
    for name, key in settings.items():
        values = [record.settings.get(key) for record in records]
        texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
        are_numbers = all(value is None or is_number(value) for value in values)
        labels[name] = pa.array(values, pa.float64()) if are_numbers else pa.array(texts, pa.string())
    labels["axis"] = pa.array([record.axis for record in records], pa.string())
    columns = {name: values.take(owner) for name, values in labels.items()}
    for name in ["at", *metrics, "gap"]:
        blank = (np.full(count, math.nan) for count in counts)
        known = np.concatenate([own.get(name, gap) for (_, own), gap in zip(parts, blank, strict=True)])
        columns[name] = pa.array(known, pa.float64(), from_pandas=True)
    return pa.table(columns), tuple(settings)


def read_columns(path: Path) -> tuple[pa.Table, tuple[str, ...]]:
    """The table in a Parquet file, its columns in their order and of their types, and those that are swept settings."""
    try:
        data = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from error
    if missing := [name for name in REQUIRED if name not in data.column_names]:
        raise UserError(f"{path}: no column {', '.join(missing)}; a table of runs needs {', '.join(REQUIRED)}")
    if not data.num_rows:
        raise UserError(f"{path}: the table holds no rows")
    settings = tuple(json.loads((data.schema.metadata or {}).get(SETTINGS_KEY, b"[]")))
    columns = {name: _label_column(data, name, path) for name in LABELS}
    columns |= {name: data[name] for name in settings}
    columns |= {name: _label_column(data, name, path) for name in POSITION}
    for name, kind in zip(data.column_names, data.schema.types, strict=True):
        if name not in columns and (name in REQUIRED or pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            columns[name] = _cast(data[name], pa.float64(), f"{path}: column {name}")
    return pa.table(columns), settings


def _label_column(data: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    """A label or position column of the table from this file, of its type; a `UserError` where a row lacks it."""
    kind, place = {**LABELS, **POSITION}[name], f"{path}: column {name}"
    if name not in data.column_names:
        return pa.chunked_array([pa.array([DEFAULTS[name]] * data.num_rows, kind)])
    column = _cast(data[name], kind, place)
    if name == "budget":
        # NaN stands for nothing where a table comes from pandas.
        budgets = [None if value is None or math.isnan(value) else value for value in column.to_pylist()]
        if odd := [value for value in budgets if value is not None and not 0 < value < math.inf]:
            raise UserError(f"{place}: {odd[0]:g} is no budget; give nats per sequence above 0, or leave it empty")
        return pa.chunked_array([pa.array(budgets, kind)])
    if name != "at" and column.null_count:
        raise UserError(f"{place}: {column.null_count} rows have no value; each row must say which run it is of")
    if name == "status" and (wrong := set(column.to_pylist()) - set(get_args(Status))):
        raise UserError(f"{place}: {sorted(wrong)[0]!r} is none of {', '.join(get_args(Status))}")
    return column


def _cast(column: pa.ChunkedArray, kind: Any, place: str) -> pa.ChunkedArray:
    try:
        return column.cast(kind)
    except pa.ArrowException as error:
        raise UserError(f"{place}: expected {kind}, found {column.type} ({first_line(error)})") from error
