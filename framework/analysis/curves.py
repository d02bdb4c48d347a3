"""Curves of a run: read from its folder, smoothed, put on the KL axis, and averaged over seeds.

Array sizes here: `steps` logged steps of one run, `seeds` runs of one variant, `points` of a shared axis.
A step on which something was not measured holds NaN in memory and null on disk.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from jaxtyping import Float
from scipy.special import stdtrit

from framework.errors import UserError

WINDOW = 5
"""Measured steps in the centred moving mean that every summary and plot is read off, given ten or more."""


@dataclass(frozen=True)
class Run:
    """One run folder, read."""

    folder: Path
    config: dict[str, Any]
    fingerprint: str
    manifest: dict[str, Any]
    metrics: list[dict[str, Any]]
    """One record a step, in step order."""
    timings: list[dict[str, Any]]
    """One record a step, in step order; empty when the run kept none."""

    @cached_property
    def steps(self) -> Float[np.ndarray, "steps"]:
        """The logged steps; step s was sampled after s updates."""
        return np.array([record["step"] for record in self.metrics], dtype=float)

    def series(self, name: str) -> Float[np.ndarray, "steps"]:
        """One metric at every logged step; NaN where it is absent, null or not finite."""
        values = (record.get(name) for record in self.metrics)
        array = np.array([math.nan if value is None else float(value) for value in values])
        return np.where(np.isfinite(array), array, math.nan)

    def smoothed(self, name: str) -> Float[np.ndarray, "steps"]:
        """The moving mean of one metric."""
        return moving_mean(self.series(name))

    @cached_property
    def sqrt_kl(self) -> Float[np.ndarray, "steps"]:
        """Square root of the smoothed KL to the initial policy, in sqrt(nats per sequence).

        k1 is unbiased but not bounded below, so a smoothed value under zero is drawn at zero.
        """
        return np.sqrt(np.maximum(self.smoothed("kl_nats"), 0.0))

    @cached_property
    def origin(self) -> "Origin | None":
        """Where this run's proxy and gold started; None when that was not recorded."""
        return read_origin(self.folder)

    def gap(self) -> Float[np.ndarray, "steps"]:
        """Proxy minus gold, each in standard deviations of its own step-0 batch; NaN without gold."""
        if self.origin is None:
            return np.full(len(self.metrics), math.nan)
        return self.origin.gap(self.series("proxy"), self.series("gold"))


@dataclass(frozen=True)
class Origin:
    """Mean and population standard deviation of proxy and gold over the rows of one step.

    The step is the first one whose rows were gold-scored: step 0, the initial policy, in every run that
    measures gold at all. Proxy and gold have no common unit; this puts both on the spread that the
    initial policy showed, which is a convention and not an exchange rate.
    """

    step: int
    num_rows: int
    proxy_mean: float
    proxy_std: float
    gold_mean: float
    gold_std: float

    def gap(self, proxy: np.ndarray | float, gold: np.ndarray | float) -> np.ndarray:
        """Standardised proxy minus standardised gold, elementwise; 0 at the initial policy's means."""
        standard_proxy = (np.asarray(proxy) - self.proxy_mean) / self.proxy_std
        return np.asarray(standard_proxy - (np.asarray(gold) - self.gold_mean) / self.gold_std)


def load_run(folder: Path) -> Run:
    """The run in `folder`; a `UserError` names what is missing or unreadable.

    A last line that an interruption cut short is left out. Where a resumed run wrote a step twice, the
    later record stands.
    """
    folder = Path(folder)
    metrics = _read_steps(folder / "metrics.jsonl")
    if not metrics:
        raise UserError(f"{folder}: metrics.jsonl holds no step yet; let the run log at least one")
    timings_path, manifest_path = folder / "timings.jsonl", folder / "manifest.json"
    return Run(
        folder=folder,
        config=_read_config(folder / "config.yaml"),
        fingerprint=_read_text(folder / "fingerprint.txt").strip(),
        manifest=_parse_json(_read_text(manifest_path), manifest_path) if manifest_path.exists() else {},
        metrics=metrics,
        timings=_read_steps(timings_path) if timings_path.exists() else [],
    )


def rollout_steps(folder: Path) -> list[int]:
    """The steps whose rollouts were kept, in order."""
    paths = (Path(folder) / "rollouts").glob("step_*.parquet")
    return sorted(int(path.stem.removeprefix("step_")) for path in paths)


def read_rollouts(folder: Path, step: int, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of one step's rollouts, with these columns."""
    path = Path(folder) / "rollouts" / f"step_{step:06d}.parquet"
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, columns=list(columns)).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    return rows


def read_origin(folder: Path) -> Origin | None:
    """Proxy and gold over the first gold-scored step's rows; None when no kept step has both.

    None also when either is constant over those rows: then there is no spread to measure in.
    """
    for step in rollout_steps(folder):
        rows = [r for r in read_rollouts(folder, step, ["reward", "gold"]) if _is_number(r["gold"])]
        if not rows:
            continue
        proxy, gold = (np.array([row[name] for row in rows], dtype=float) for name in ("reward", "gold"))
        if min(proxy.std(), gold.std()) < 1e-12:
            return None
        moments = (float(x) for x in (proxy.mean(), proxy.std(), gold.mean(), gold.std()))
        return Origin(step, len(rows), *moments)
    return None


def window_for(num_measured: int) -> int:
    """The moving mean's width: 5 from ten measurements on, 3 from six on, else 1.

    A window of 5 over three steps would flatten a short run into its own mean.
    """
    return WINDOW if num_measured >= 2 * WINDOW else 3 if num_measured >= 6 else 1


def moving_mean(values: Float[np.ndarray, "steps"]) -> Float[np.ndarray, "steps"]:
    """Centred mean over `window_for` measured values, truncated at the ends; NaN where nothing was measured.

    The window counts measurements, not steps, so a metric taken every tenth step is smoothed over fifty.
    At the first and last measurement a window of 5 is the mean of three values: a steep start reads a
    little late and a steep end a little early.
    """
    measured = np.flatnonzero(np.isfinite(values))
    count, half = len(measured), window_for(len(measured)) // 2
    padded, inside = np.pad(values[measured], half), np.pad(np.ones(count), half)
    smooth = np.full(len(values), math.nan)
    # Added in order, so that a sum is that of the window's own values to the last bit.
    windows = [slice(shift, shift + count) for shift in range(2 * half + 1)]
    smooth[measured] = sum(padded[w] for w in windows) / sum(inside[w] for w in windows)
    return smooth


def moving_standard_error(
    errors: Float[np.ndarray, "steps"], measured: Float[np.ndarray, "steps"]
) -> Float[np.ndarray, "steps"]:
    """Standard error of `moving_mean(measured)`, from the standard error of each value.

    `sqrt(sum(se^2)) / n` over the same window: batches are independent draws. NaN where an error of the window is unknown.
    """
    is_measured = np.isfinite(measured)
    is_known = moving_mean(np.where(is_measured, np.isfinite(errors), math.nan)) > 1 - 1e-9
    variances = np.where(is_measured, np.nan_to_num(errors, nan=0.0) ** 2, math.nan)
    count = int(is_measured.sum())
    half, order = window_for(count) // 2, np.arange(count)
    sizes = np.full(len(measured), math.nan)
    sizes[is_measured] = np.minimum(order + half, count - 1) - np.maximum(order - half, 0) + 1
    return np.where(is_known, np.sqrt(moving_mean(variances) / sizes), math.nan)


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval for the mean of independent values; None for fewer than two.

    `mean ± t(n-1) s / sqrt(n)` with the sample (n-1) standard deviation.
    """
    if len(values) < 2:
        return None
    array = np.asarray(values, dtype=float)
    half = stdtrit(len(array) - 1, 0.5 + confidence / 2) * array.std(ddof=1) / math.sqrt(len(array))
    return float(array.mean() - half), float(array.mean() + half)


@dataclass(frozen=True)
class Band:
    """A mean over seeds along an axis, with its pointwise 95% t interval (NaN with one seed)."""

    axis: Float[np.ndarray, "points"]
    mean: Float[np.ndarray, "points"]
    low: Float[np.ndarray, "points"]
    high: Float[np.ndarray, "points"]
    num_seeds: int


def over_seeds(axis: Float[np.ndarray, "points"], curves: Float[np.ndarray, "seeds points"]) -> Band:
    """The mean over seeds at each point where every seed has a value; other points are dropped.

    Dropping keeps a line from jumping where one seed stopped early.
    """
    complete = np.isfinite(curves).all(axis=0)
    kept = curves[:, complete]
    mean = kept.mean(axis=0)
    half = np.full(mean.shape, math.nan)
    if len(kept) > 1:
        half = stdtrit(len(kept) - 1, 0.975) * kept.std(axis=0, ddof=1) / math.sqrt(len(kept))
    return Band(axis[complete], mean, mean - half, mean + half, len(kept))


def band_by_step(steps: Sequence[np.ndarray], curves: Sequence[np.ndarray]) -> Band:
    """The seeds' mean against step, over the steps that every seed measured."""
    axis = np.unique(np.concatenate(list(steps)))
    table = np.full((len(curves), len(axis)), math.nan)
    for row, (own_steps, values) in enumerate(zip(steps, curves, strict=True)):
        table[row, np.searchsorted(axis, own_steps)] = values
    return over_seeds(axis, table)


def band_by_axis(positions: Sequence[np.ndarray], curves: Sequence[np.ndarray], points: int = 60) -> Band:
    """The seeds' mean against a measured axis such as sqrt(KL), over the range that every seed reached.

    Seeds pass the same KL at different steps, and may dwell there. Each seed's values are averaged over
    all visits to a grid cell and interpolated across empty cells, then the seeds are averaged.
    """
    top = max((np.nanmax(x) for x in positions if np.isfinite(x).any()), default=0.0)
    axis = np.linspace(0.0, max(float(top), 1e-9), points)
    return over_seeds(axis, np.stack([_on_grid(axis, x, y) for x, y in zip(positions, curves, strict=True)]))


def _on_grid(axis: np.ndarray, positions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """One seed's values on the grid; NaN outside the range it visited."""
    usable = np.isfinite(positions) & np.isfinite(values)
    if not usable.any():
        return np.full(len(axis), math.nan)
    cell = np.rint(positions[usable] / (axis[1] - axis[0])).astype(int).clip(0, len(axis) - 1)
    visits = np.bincount(cell, minlength=len(axis))
    seen = visits > 0
    # Cells stand at the mean position of their visits: at their centres a line would turn into stairs.
    x, y = (np.bincount(cell, weights=w[usable], minlength=len(axis))[seen] for w in (positions, values))
    return np.interp(axis, x / visits[seen], y / visits[seen], left=math.nan, right=math.nan)


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path.parent} is not a run folder: it has no {path.name}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _parse_json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON at line {error.lineno} ({error.msg})") from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(_read_text(path)) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: expected keys and values, found {type(loaded).__name__}")
    return loaded


def _read_steps(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file, one per step, in step order."""
    text = _read_text(path)
    lines = text.split("\n")
    by_step: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise UserError(f"{path}, line {number}: not JSON ({error.msg})") from error
        if not isinstance(record, dict) or "step" not in record:
            raise UserError(f"{path}, line {number}: expected an object with a `step`")
        by_step[int(record["step"])] = record
    return [by_step[step] for step in sorted(by_step)]
