"""The table of a sweep: one row per trial and step, and one per best-of-n curve and n.

It is what a sweep measured and nothing else: no clock, no path, no code version, so the same sweep gives the same
bytes. What was not measured is null on disk and NaN in memory. Sizes here: `rows` of the table, `steps` of one curve.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from framework.analysis.comparison import Pool, read_pool
from framework.analysis.curves import Run, load_run, moving_mean
from framework.analysis.sweep_columns import (
    COMPLETE,
    LABELS,
    POSITION,
    REQUIRED,
    Optimiser,
    Status,
    cast_column,
    label_column,
)
from framework.artifacts import written_whole
from framework.errors import UserError

SETTINGS_KEY = b"goldilocks.settings"
"""In the file's metadata: the names of the columns that are swept settings, as a JSON list."""


@dataclass(frozen=True)
class TrialRecord:
    """A trial of a sweep: what it was, and what became of it."""

    trial: str
    """Name, unique without the seed."""
    method: str
    """The curve it belongs to: everything swept but the budget."""
    budget: float | None
    """Nats per sequence asked for."""
    seed: int
    settings: dict[str, Any]
    """The swept keys, dotted, with this trial's values."""
    status: Status
    """`stopped`: ended early by the scheduler or on purpose, and all that it has is good data."""
    run: Path | None
    """Its run folder; None where it never began."""
    error: str | None = None


@dataclass(frozen=True, eq=False)
class TrialCurve:
    """The rows of one trial, or of one best-of-n curve, in the order of its steps, or of n."""

    trial: str
    method: str
    optimiser: str
    budget: float | None
    seed: int
    status: str
    data: pa.Table

    @property
    def is_complete(self) -> bool:
        """Whether it ended as it should, so that its last steps count."""
        return self.status in COMPLETE

    def series(self, name: str) -> Float[np.ndarray, "steps"]:
        """One metric; NaN where it was not measured, and throughout where there is no such column."""
        return _floats(self.data, name)

    @cached_property
    def position(self) -> Float[np.ndarray, "steps"]:
        """The steps of a trial, or the values of n of a best-of-n curve."""
        return self.series("step" if self.optimiser == "rl" else "n")

    @cached_property
    def sqrt_kl(self) -> Float[np.ndarray, "steps"]:
        """Square root of KL to the initial policy, in sqrt(nats per sequence), each step by itself.

        Not smoothed, unlike `Run.sqrt_kl`: gold belongs to the KL of its own step, and while KL climbs a moving mean
        is another step's. An estimate below zero counts as zero.
        """
        return np.sqrt(np.maximum(self.series("kl_nats"), 0.0))

    @cached_property
    def smooth_kl(self) -> Float[np.ndarray, "steps"]:
        """Moving mean of KL, nats per sequence: for traces."""
        return np.maximum(moving_mean(self.series("kl_nats")), 0.0)

    @property
    def last_fifth(self) -> slice:
        """The last fifth of a trial's rows, rounded up; of best-of-n the largest n alone."""
        count = math.ceil(self.data.num_rows / 5) if self.optimiser == "rl" else 1
        return slice(self.data.num_rows - count, None)


@dataclass(frozen=True, eq=False)
class SweepTable:
    """A sweep's table: columns `LABELS`, swept settings, `POSITION`, then the metrics, `gap` last."""

    data: pa.Table
    settings: tuple[str, ...] = ()
    """The columns that are swept settings: float64 where every value is a number, else text."""

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods, in the order of the table."""
        return tuple(dict.fromkeys(self.data["method"].to_pylist()))

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """The metric columns, in the order of the table."""
        others = {*LABELS, *POSITION, *self.settings}
        return tuple(name for name in self.data.column_names if name not in others)

    def column(self, name: str) -> Float[np.ndarray, "rows"]:
        """One metric over all rows; NaN where it was not measured, and throughout without such a column."""
        return _floats(self.data, name)

    @cached_property
    def curves(self) -> tuple[TrialCurve, ...]:
        """The rows of every trial and of every best-of-n curve, in the order of the table."""
        return tuple(self._curves())

    def curves_of(self, method: str, optimiser: Optimiser) -> tuple[TrialCurve, ...]:
        """The curves of one method by one optimiser, over all budgets and seeds."""
        return tuple(c for c in self.curves if c.method == method and c.optimiser == optimiser)

    def write(self, path: Path) -> Path:
        """The path, with the table in it as Parquet, whole or not at all.

        Raises:
            RunError: the file could not be written.
        """
        metadata = {SETTINGS_KEY: json.dumps(list(self.settings)).encode()}
        with written_whole(path) as scratch:
            pq.write_table(self.data.replace_schema_metadata(metadata), scratch)
        return path

    def _curves(self) -> Iterator[TrialCurve]:
        names = ("optimiser", "method", "trial", "seed")
        codes = np.stack([self.data[n].combine_chunks().dictionary_encode().indices for n in names], axis=1)
        _, first, group = np.unique(codes, axis=0, return_index=True, return_inverse=True)
        is_rl = np.array(self.data["optimiser"].to_pylist()) == "rl"
        order = np.lexsort((np.where(is_rl, self.column("step"), self.column("n")), group))
        bounds = np.searchsorted(group[order], np.arange(len(first) + 1))
        for number in np.argsort(first):
            rows = self.data.take(order[bounds[number] : bounds[number + 1]])
            yield TrialCurve(**{name: rows[name][0].as_py() for name in LABELS}, data=rows)


def build_table(records: Sequence[TrialRecord]) -> SweepTable:
    """The table of these trials, in their order; reads the run folder of each that began.

    Best-of-n curves follow the trials: one per method and seed, from the pool that lies beside its first run, without
    a budget. A trial that failed has the steps it made, under its status.

    Raises:
        UserError: no trial has a run folder, or one of the folders cannot be read.
    """
    runs = [(record, load_run(record.run)) for record in records if record.run is not None]
    if not runs:
        raise UserError("no trial of this sweep has logged a step yet: there is nothing to tabulate")
    parts = [_Part(record, "rl", _trial_columns(run)) for record, run in runs]
    pooled: set[tuple[str, int]] = set()
    for record, run in runs:
        if (record.method, record.seed) not in pooled and (pool := read_pool(run)) is not None:
            pooled.add((record.method, record.seed))
            parts.append(_Part(record, "best_of_n", _pool_columns(pool)))
    return _assemble(parts)


def read_table(path: Path) -> SweepTable:
    """The table in a Parquet file: one that a sweep wrote, or the user's own.

    The user's own needs `REQUIRED` and may leave out `DEFAULTS`; all its other number columns are metrics.

    Raises:
        UserError: not Parquet, no rows, a column missing or of the wrong kind, a label missing in a row, a budget that
            is none, or two rows that are the same step of the same trial.
    """
    try:
        data = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    if missing := [name for name in REQUIRED if name not in data.column_names]:
        raise UserError(
            f"{path}: no column {', '.join(missing)}; a sweep's table needs {', '.join(REQUIRED)}"
        )
    if not data.num_rows:
        raise UserError(f"{path}: the table holds no rows")
    settings = tuple(json.loads((data.schema.metadata or {}).get(SETTINGS_KEY, b"[]")))
    columns = {name: label_column(data, name, path) for name in {**LABELS, **POSITION}}
    columns |= {
        name: data[name]
        if name in settings
        else cast_column(data[name], pa.float64(), f"{path}: column {name}")
        for name in data.column_names
        if name not in columns and (name in REQUIRED or name in settings or _is_numeric(data[name].type))
    }
    labels, position = [*LABELS, *settings], [*POSITION]
    rest = [name for name in columns if name not in {*labels, *position}]
    table = SweepTable(pa.table({name: columns[name] for name in [*labels, *position, *rest]}), settings)
    _assert_distinct(table, path)
    return table


@dataclass(frozen=True, eq=False)
class _Part:
    """One curve on its way into the table."""

    record: TrialRecord
    optimiser: Optimiser
    columns: Mapping[str, np.ndarray]


def _trial_columns(run: Run) -> dict[str, np.ndarray]:
    """Step, every scalar metric, and the gap."""
    names = dict.fromkeys(
        name
        for record in run.metrics
        for name, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "step"
    )
    return {"step": run.steps} | {name: run.series(name) for name in names} | {"gap": run.gap()}


def _pool_columns(pool: Pool) -> dict[str, np.ndarray]:
    """n, KL, proxy, gold and gap."""
    names = ("n", "kl_nats", "proxy", "gold", "gold_se", "gap")
    rows = [[math.nan if point[name] is None else point[name] for name in names] for point in pool.points]
    return dict(zip(names, np.array(rows, dtype=float).T, strict=True))


def _assemble(parts: Sequence[_Part]) -> SweepTable:
    metrics = dict.fromkeys(name for part in parts for name in part.columns if name not in {*POSITION, "gap"})
    taken = {*LABELS, *POSITION, *metrics, "gap"}
    keys = dict.fromkeys(key for part in parts for key in part.record.settings)
    # A section of the configuration may have a metric's name, as `gold` has.
    settings = {key: f"settings.{key}" if key in taken else key for key in keys}
    counts = [len(next(iter(part.columns.values()))) for part in parts]
    owner = np.repeat(np.arange(len(parts)), counts)
    labels = {name: pa.array([_label(part, name) for part in parts], kind) for name, kind in LABELS.items()}
    labels |= {
        column: _setting_array([_setting(part, key) for part in parts]) for key, column in settings.items()
    }
    columns = {name: values.take(pa.array(owner)) for name, values in labels.items()}
    for name in [*POSITION, *metrics, "gap"]:
        blank = (np.full(count, math.nan) for count in counts)
        values = np.concatenate([part.columns.get(name, gap) for part, gap in zip(parts, blank, strict=True)])
        columns[name] = pa.array(values, pa.float64(), from_pandas=True).cast(
            POSITION.get(name, pa.float64())
        )
    return SweepTable(pa.table(columns), tuple(settings.values()))


def _label(part: _Part, name: str) -> Any:
    if part.optimiser == "best_of_n":
        # It samples the initial policy: no budget is asked of it, and no trial's end is its own.
        own = {"optimiser": "best_of_n", "budget": None, "status": "finished"}
        if name in own:
            return own[name]
    return part.optimiser if name == "optimiser" else getattr(part.record, name)


def _setting(part: _Part, key: str) -> Any:
    of_kl = part.optimiser == "best_of_n" and key.split(".", maxsplit=1)[0] == "kl"
    return None if of_kl else part.record.settings.get(key)


def _setting_array(values: Sequence[Any]) -> pa.Array:
    if all(value is None or _is_number(value) for value in values):
        return pa.array(values, pa.float64())
    return pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values], pa.string())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _assert_distinct(table: SweepTable, path: Path) -> None:
    """Refuse rows that cannot all belong to the trial that they name: they would be merged or counted twice."""
    for curve in table.curves:
        name = f"{path}: {curve.method}, trial {curve.trial}, seed {curve.seed} ({curve.optimiser})"
        for label in ("budget", "status"):
            if len(values := curve.data[label].unique().to_pylist()) > 1:
                raise UserError(
                    f"{name} has {label} {values[0]} and {values[1]}: give each trial a name of its own"
                )
        known = curve.position[np.isfinite(curve.position)]
        if len(known) > len(np.unique(known)):
            what = "step" if curve.optimiser == "rl" else "n"
            raise UserError(
                f"{name} has more than one row for the same {what}: each row must be a {what} of its own"
            )


def _is_numeric(kind: Any) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _floats(data: pa.Table, name: str) -> Float[np.ndarray, "rows"]:
    if name not in data.column_names:
        return np.full(data.num_rows, math.nan)
    values = data[name].cast(pa.float64()).to_numpy()
    return np.where(np.isfinite(values), values, math.nan)
