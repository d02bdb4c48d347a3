"""The one table that every analysis reads: a row for each run and step, and for each best-of-n curve and n. It is what
the runs measured and nothing else: no clock, no path, no code version, so the same runs give the same bytes. What was not
measured is null on disk and NaN in memory. Sizes here: `rows` of the table, or of one curve."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from framework.analysis.best_of_n import read_pool
from framework.analysis.columns import BEST_OF_N, LABELS, SETTINGS_KEY, Part, assemble, read_columns
from framework.analysis.records import RunRecord, is_number
from framework.analysis.run_folder import Run, load_run, manifest_of, read_config, status_of
from framework.artifacts import written_whole
from framework.errors import UserError
from framework.measure import outcome_of, sqrt_kl

BEST_OF_N_COLUMNS = ("n", "kl_nats", "proxy", "proxy_se", "gold", "gold_se", "gap", "win_rate", "win_rate_se")


@dataclass(frozen=True, eq=False)
class Curve(RunRecord):
    """The rows of one run, or of one best-of-n curve, in their order."""

    data: pa.Table = field(kw_only=True)

    def series(self, name: str) -> Float[np.ndarray, "rows"]:
        """One metric; NaN where it was not measured, and throughout where there is no such column."""
        if name not in self.data.column_names:
            return np.full(self.data.num_rows, math.nan)
        values = self.data[name].cast(pa.float64()).to_numpy()
        return np.where(np.isfinite(values), values, math.nan)

    @cached_property
    def position(self) -> Float[np.ndarray, "rows"]:
        """The step, or n, of each row."""
        return self.series("at")

    @cached_property
    def sqrt_kl(self) -> Float[np.ndarray, "rows"]:
        """As of `measure.sqrt_kl`."""
        return sqrt_kl(self.series("kl_nats"))


@dataclass(frozen=True, eq=False)
class Table:
    """Columns `LABELS`, swept settings, `POSITION`, then the metrics, `gap` last."""

    data: pa.Table
    settings: tuple[str, ...] = ()
    """The columns that are swept settings: float64 where every value is a number, else text."""

    @cached_property
    def curve_names(self) -> tuple[str, ...]:
        """In the order of the table."""
        return tuple(dict.fromkeys(self.data["curve"].to_pylist()))

    @cached_property
    def curves(self) -> tuple[Curve, ...]:
        """The rows of every run and of every best-of-n curve, in the order of the table."""
        names = ("method", "curve", "run", "seed")
        codes = np.stack([self.data[n].combine_chunks().dictionary_encode().indices for n in names], axis=1)
        _, first, group = np.unique(codes, axis=0, return_index=True, return_inverse=True)
        order = np.lexsort((self.data["at"].to_numpy(), group))
        bounds = np.searchsorted(group[order], np.arange(len(first) + 1))
        rows = [self.data.take(order[bounds[own] : bounds[own + 1]]) for own in np.argsort(first)]
        return tuple(
            Curve(
                **{name: own[name][0].as_py() for name in (*LABELS, "axis")},
                settings={name: own[name][0].as_py() for name in self.settings},
                data=own,
            )
            for own in rows
        )

    def curves_of(self, curve: str, method: str | None = None) -> tuple[Curve, ...]:
        """Those of one curve name, by one method or by all, over all points and seeds."""
        return tuple(c for c in self.curves if c.curve == curve and method in (None, c.method))

    @cached_property
    def records(self) -> tuple[Curve, ...]:
        """The curves that are of runs, all but best-of-n: as records they have what the table knows, no folders."""
        return tuple(curve for curve in self.curves if curve.method != BEST_OF_N)

    def write(self, path: Path) -> Path:
        """The path, with the table in it as Parquet, whole or not at all; a `RunError` where it could not be written."""
        metadata = {SETTINGS_KEY: json.dumps(list(self.settings)).encode()}
        with written_whole(path) as scratch:
            pq.write_table(self.data.replace_schema_metadata(metadata), scratch)
        return path


def build_table(records: Sequence[RunRecord]) -> Table:
    """The table of these runs, in their order; reads the folder of each that logged a step. Best-of-n curves follow: one
    per curve and seed, from the pool that lies beside its first run. A run that failed has the steps it made. A
    `UserError` where no run has a folder, or one cannot be read."""
    runs = [(record, load_run(record.folder)) for record in records if record.folder is not None]
    if not runs:
        raise UserError("no run has logged a step yet: there is nothing to tabulate")
    parts = [_run_part(record, run) for record, run in runs]
    pooled: set[tuple[str, int]] = set()
    for record, run in runs:
        key = record.curve, record.seed
        if key not in pooled and (pool := read_pool(run.folder)) is not None:
            pooled.add(key)
            own = _pool_record(record, [other.settings for other in records if other.curve == record.curve])
            parts.append(_pool_part(own, pool.points))
    return Table(*assemble(parts))


def best_of_n_table(curves: Mapping[str, Sequence[Mapping[str, Any]]], seed: int) -> Table:
    """The table of best-of-n curves by their names, each of points as of `best_of_n_points`."""
    names = {name: RunRecord(name, name, "", name, "", seed, BEST_OF_N, status="finished", axis="n") for name in curves}
    return Table(*assemble([_pool_part(names[name], points) for name, points in curves.items()]))


def record_of(folder: Path) -> RunRecord:
    """The record of a run folder by itself: a run of no experiment."""
    manifest, seed = manifest_of(folder), int(read_config(folder).get("seed") or 0)
    name = folder.resolve().parent.name if folder.name == "train" else folder.resolve().name
    method, axis = manifest.get("kind", "online"), manifest.get("axis", "step")
    return RunRecord(
        name, name, "", name, "", seed, method, manifest.get("budget"), {}, status_of(folder), folder, axis=axis
    )


def summarise_run(folder: Path) -> dict[str, Any]:
    """What `summary.json` of a run holds, but for how it ended: its outcome, its seed and what it logged. `warnings` has
    the step at which each signal's alarm was raised, `gaps` the steps without a record, where there are any. Nothing of
    the clock: seconds and memory are in timings.jsonl."""
    run, record = load_run(folder), record_of(folder)
    curve = Table(*assemble([_run_part(record, run)])).curves[0]
    tokens = [timing["tokens"] for timing in run.timings if timing.get("tokens") is not None]
    return outcome_of(curve).to_json() | {
        "seed": record.seed,
        "tokens_generated": int(sum(tokens)) if len(tokens) == len(run.metrics) else None,
        "warnings": dict(run.metrics[-1].get("warnings") or {}),
        **({"gaps": run.gaps} if run.gaps else {}),
    }


def read_table(path: Path) -> Table:
    """The table in a Parquet file: one that an experiment wrote, or the user's own, which needs `REQUIRED` and may leave
    out `DEFAULTS`; all its other number columns are metrics. A `UserError` refuses what cannot be read so, and rows that
    cannot all belong to the run that they name: they would be merged or counted twice."""
    table = Table(*read_columns(path))
    for curve in table.curves:
        name = f"{path}: {curve.curve}, run {curve.run}, seed {curve.seed} ({curve.method})"
        for label in ("condition", "variant", "point", "budget", "status", "axis"):
            if len(values := curve.data[label].unique().to_pylist()) > 1:
                raise UserError(f"{name} has {label} {values[0]} and {values[1]}: give each run a name of its own")
        known = curve.position[np.isfinite(curve.position)]
        if len(known) > len(np.unique(known)):
            own = f"each row must be a {curve.axis} of its own"
            raise UserError(f"{name} has more than one row for the same {curve.axis}: {own}")
    return table


def _run_part(record: RunRecord, run: Run) -> Part:
    """Every scalar metric of a run, and the gap."""
    named = (pair for line in run.metrics for pair in line.items())
    names = dict.fromkeys(name for name, value in named if is_number(value) and name != "step")
    return record, {"at": run.series(record.axis)} | {name: run.series(name) for name in [*names, "gap"]}


def _pool_record(record: RunRecord, members: Sequence[Mapping[str, Any]]) -> RunRecord:
    """Best-of-n by the reward of a curve. It samples the initial policy: no budget is asked of it, no run's end is its
    own, and of the swept settings it has those that all runs of the curve share."""
    shared = {k: v for k, v in record.settings.items() if all(k in other and other[k] == v for other in members)}
    point = record.point if shared == record.settings else json.dumps(shared, sort_keys=True) if shared else ""
    asked = replace(record, run=record.curve, point=point, settings=shared)
    return replace(asked, method=BEST_OF_N, budget=None, status="finished", axis="n")


def _pool_part(record: RunRecord, points: Sequence[Mapping[str, Any]]) -> Part:
    """Best-of-n points; wins over single heads are those of curves that have them."""
    known = [name for name in BEST_OF_N_COLUMNS if any(name in point for point in points)]
    rows = [[math.nan if point[name] is None else point[name] for name in known] for point in points]
    return record, dict(zip(("at", *known[1:]), np.array(rows, dtype=float).T, strict=True))
