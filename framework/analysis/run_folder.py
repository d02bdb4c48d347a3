"""A run folder, read: what it was asked to be, its records step by step, and the rollouts that it kept."""

import contextlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from jaxtyping import Float

from framework.analysis.records import Status
from framework.artifacts import MANIFEST, read_manifest
from framework.errors import UserError, first_line

METRICS, SUMMARY = "metrics.jsonl", "summary.json"
STOPPED_FILE = "stopped_early.txt"  # in the folder of a run that the scheduler of its experiment stopped


@dataclass(frozen=True)
class Run:
    """One run folder, read; metrics and timings have one record a step, in step order. Step s was sampled after s updates."""

    folder: Path
    config: dict[str, Any]
    fingerprint: str
    manifest: dict[str, Any]
    metrics: list[dict[str, Any]]
    timings: list[dict[str, Any]]  # empty when the run kept none

    @cached_property
    def gaps(self) -> list[tuple[int, int]]:
        """As of the function: the run made the steps that its last record and its checkpoints tell of."""
        names = [path.name.removeprefix("step_") for path in (self.folder / "checkpoints").glob("step_*")]
        known = [record["step"] for record in self.metrics]
        return gaps(known, max([known[-1] + 1, *(int(name) for name in names if name.isdigit())]))

    def series(self, name: str) -> Float[np.ndarray, "steps"]:
        """One metric, or `gap` as of `Origin`, at every logged step; NaN where it is absent, null or not finite."""
        if name == "gap":
            origin = read_origin(self.folder)
            unknown = np.full(len(self.metrics), math.nan)
            return unknown if origin is None else origin.gap(self.series("proxy"), self.series("gold"))
        # None becomes NaN.
        values = np.array([record.get(name) for record in self.metrics], dtype=float)
        return np.where(np.isfinite(values), values, math.nan)


@dataclass(frozen=True)
class Origin:
    """Mean and population standard deviation of proxy and gold over the rows of the first gold-scored step. The two have
    no common unit; this puts both on the spread that the initial policy showed, a convention and not an exchange rate."""

    proxy_mean: float
    proxy_std: float
    gold_mean: float
    gold_std: float

    def gap(self, proxy: np.ndarray | float, gold: np.ndarray | float) -> np.ndarray:
        """Standardised proxy minus standardised gold, elementwise; 0 at the initial policy's means."""
        standard_proxy = (np.asarray(proxy) - self.proxy_mean) / self.proxy_std
        return np.asarray(standard_proxy - (np.asarray(gold) - self.gold_mean) / self.gold_std)


def load_run(folder: Path) -> Run:
    """The run in `folder`; a `UserError` names what is missing or unreadable."""
    metrics = _read_steps(folder / METRICS)
    if not metrics:
        raise UserError(f"{folder}: metrics.jsonl holds no step yet; let the run log at least one")
    timings = _read_steps(path) if (path := folder / "timings.jsonl").exists() else []
    fingerprint = _read_text(folder / "fingerprint.txt").strip()
    return Run(folder, read_config(folder), fingerprint, manifest_of(folder), metrics, timings)


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of the run in a folder, as plain keys and values."""
    path = folder / "config.yaml"
    try:
        loaded = yaml.safe_load(_read_text(path)) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({first_line(error)})") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: expected keys and values, found {type(loaded).__name__}")
    return loaded


def status_of(folder: Path) -> Status:
    """How the run in a folder ended, as the folder tells: `unfinished` where it has yet to come to its end."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a cut summary is written again
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        return "finished" if summary["ended"] == "all steps" else "stopped"
    return "stopped" if (folder / STOPPED_FILE).is_file() else "unfinished"


def manifest_of(folder: Path) -> dict[str, Any]:
    """What the run in a folder came from; empty without a manifest."""
    return read_manifest(folder) if (folder / MANIFEST).exists() else {}


def rollout_steps(folder: Path) -> list[int]:
    """The steps whose rollouts were kept, in order."""
    paths = (Path(folder) / "rollouts").glob("step_*.parquet")
    return sorted(int(path.stem.removeprefix("step_")) for path in paths)


def read_rollouts(folder: Path, step: int, columns: Sequence[str]) -> pa.Table:
    """One step's rollouts, with these columns."""
    path = Path(folder) / "rollouts" / f"step_{step:06d}.parquet"
    try:
        return pq.read_table(path, columns=list(columns), use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from error


def read_origin(folder: Path) -> Origin | None:
    """Proxy and gold over the first gold-scored step's rows; None when no kept step has both, or either is constant."""
    for step in rollout_steps(folder):
        rows = read_rollouts(folder, step, ["proxy", "gold"])
        proxy, gold = (rows[name].to_numpy().astype(float) for name in ("proxy", "gold"))
        proxy, gold = proxy[np.isfinite(gold)], gold[np.isfinite(gold)]
        if len(gold):
            moments = (float(x) for x in (proxy.mean(), proxy.std(), gold.mean(), gold.std()))
            return Origin(*moments) if min(proxy.std(), gold.std()) >= 1e-12 else None
    return None


def gaps(known: Iterable[int], made: int) -> list[tuple[int, int]]:
    """First and last of every row of steps that are missing among the `known` ones of a run that made so many."""
    missing = set(range(made)).difference(known)
    first = sorted(step for step in missing if step - 1 not in missing)
    last = sorted(step for step in missing if step + 1 not in missing)
    return list(zip(first, last, strict=True))


def told(gaps: Iterable[tuple[int, int]]) -> str:
    """Gaps in words."""
    return ", ".join(f"step {first}" if first == last else f"steps {first} to {last}" for first, last in gaps)


def read_record(line: str | bytes, path: Path, number: int) -> dict[str, Any]:
    """The record in a line of metrics or timings; a `UserError` says how to mend one that is damaged."""
    try:
        record = json.loads(line)
    except ValueError as error:
        record, why = None, f"not JSON ({first_line(error)})"
    else:
        why = "expected an object with a `step`"
    if isinstance(record, dict) and isinstance(record.get("step"), int):
        return record
    raise UserError(
        f"{path}, line {number}: {why}; put the line back, or delete it: the step is then told as a gap in summary and report"
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path.parent} is not a run folder: it has no {path.name}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _read_steps(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file, one per step, in step order. A last line that an interruption cut short is left out;
    of a step that a resumed run wrote twice the later stands."""
    lines = _read_text(path).split("\n")
    by_step: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = read_record(line, path, number)
        except UserError:
            if number == len(lines):
                break
            raise
        by_step[record["step"]] = record
    return [by_step[step] for step in sorted(by_step)]
