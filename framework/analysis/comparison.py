"""A study's table: every variant against a baseline of the same condition and seed, by PPO and by best-of-n.

The layout is that of Coste et al. (arXiv 2310.02743): gold at the end and at the peak, and the win rate of
the final policy. What was not measured is None, never NaN; with fewer than two seeds there is no interval.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.numpy import load_file

from framework.aggregation import Aggregation
from framework.analysis.best_of_n import best_of_n_points, best_of_n_win_rate
from framework.analysis.curves import Run, moving_mean, rollout_steps, t_interval
from framework.analysis.reward_quality import head_correlation
from framework.analysis.summary import summarise
from framework.errors import UserError

FIRST_STEPS, LAST_STEPS = 5, 10
"""Gold-scored steps whose rollouts stand for a run's start and for its end."""
POOL_LINK = "pool.json"
"""Beside a run's folder: where the `scores` of the best-of-n pool by its reward model are, and the values of n."""
DIFFERENCES = ("gold_final", "gold_peak")
"""Figures whose difference to the baseline is taken seed by seed."""
CURVE_KEYS = ("n", "kl_nats", "gold")

Figures = dict[str, float | None]
Pair = tuple[str, str]
"""Condition and variant."""


@dataclass(frozen=True)
class Estimate:
    """A figure over seeds."""

    mean: float | None
    """None where no seed has it."""
    interval: tuple[float, float] | None
    """95% Student's t interval of the mean; None with fewer than two seeds."""
    num_seeds: int

    @classmethod
    def of(cls, values: list[float | None]) -> "Estimate":
        """The mean of the values that are known."""
        known = [value for value in values if value is not None]
        return cls(float(np.mean(known)) if known else None, t_interval(known), len(known))

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies above or below zero, else 0."""
        return 0 if self.interval is None else int(self.interval[0] > 0) - int(self.interval[1] < 0)


@dataclass(frozen=True)
class Comparison:
    """A study with a baseline, measured."""

    baseline: str
    conditions: tuple[str, ...]
    """One empty name where the study has none."""
    variants: tuple[str, ...]
    ppo: Mapping[Pair, Mapping[str, Estimate]]
    best_of_n: Mapping[Pair, Mapping[str, Estimate]]
    """Empty where no run has a scored pool."""
    curves: Mapping[Pair, list[dict[str, float]]]
    """Gold of best-of-n by n, averaged over seeds; `CURVE_KEYS`."""

    def to_json(self) -> dict[str, Any]:
        """As the study's `summary.json` holds it: by method, condition, variant and figure."""
        return {
            "baseline": self.baseline,
            "ppo": self._tree(self.ppo),
            "best_of_n": self._tree(self.best_of_n),
        }

    def _tree(self, cells: Mapping[Pair, Mapping[str, Estimate]]) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for (condition, variant), figures in cells.items():
            tree.setdefault(condition, {})[variant] = {
                name: {"mean": e.mean, "interval": e.interval and list(e.interval), "seeds": e.num_seeds}
                for name, e in figures.items()
            }
        return tree


@dataclass(frozen=True, eq=False)
class Pool:
    """A scored pool as one run's reward sees it; P prompts, N responses to each."""

    proxy: Float[np.ndarray, "P N"]
    gold: Float[np.ndarray, "P N"]
    points: list[dict[str, Any]]
    """As of `best_of_n_points`."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What the comparison needs of one run."""

    figures: Figures
    judged: Mapping[tuple[int, int], tuple[str, np.ndarray]]
    """Prompt, and gold of its samples, by step and group, of the last gold-scored steps."""
    pool: Pool | None


def compare_runs(
    runs: Mapping[str, Mapping[int, Run]], layout: Mapping[str, Pair], baseline: str
) -> Comparison:
    """The comparison of a study's runs; `layout` gives condition and variant of each run name.

    Each run is paired with the baseline's of its condition and seed; the figures are at `ppo_figures` and
    `pool_figures`.
    """
    names = {pair: name for name, pair in layout.items()}
    rivals = {
        (condition, seed): measure_run(run)
        for (condition, variant), name in names.items()
        if variant == baseline
        for seed, run in runs.get(name, {}).items()
    }
    ppo: dict[Pair, list[Figures]] = {pair: [] for pair in names}
    pooled: dict[Pair, list[Figures]] = {}
    points: dict[Pair, list[list[dict[str, Any]]]] = {}
    for (condition, variant), name in names.items():
        pair = condition, variant
        for seed, run in runs.get(name, {}).items():
            rival = rivals.get((condition, seed))
            own = rival if variant == baseline and rival else measure_run(run)
            against = None if variant == baseline else rival
            ppo[pair].append(ppo_figures(own, against))
            if own.pool is not None:
                pooled.setdefault(pair, []).append(pool_figures(own.pool, against.pool if against else None))
                points.setdefault(pair, []).append(own.pool.points)
    return Comparison(
        baseline,
        conditions=tuple(dict.fromkeys(condition for condition, _ in names)),
        variants=tuple(dict.fromkeys(variant for _, variant in names)),
        ppo={pair: _over_seeds(figures) for pair, figures in ppo.items()},
        best_of_n={pair: _over_seeds(figures) for pair, figures in pooled.items()},
        curves={pair: _mean_points(seeds) for pair, seeds in points.items()},
    )


def ppo_figures(own: Measured, rival: Measured | None) -> Figures:
    """A run's figures by itself, and against its rival where there is one.

    `*_final` and `*_start` are read off the smoothed curves. `gold_*` in gold's units; `kl_nats_*` nats per
    sequence to the start policy; `gap_final` standardised proxy minus standardised gold, see `Run.gap`;
    `disagreement_*` the deviation over heads in reference s.d., of the policy's samples (`final`) and of the start
    policy's (`start`), with their ratio; `head_correlation_*` the mean Pearson correlation of two heads over the
    rollouts there; `accuracy` of the mean reward on held-out pairs, by gold. `win_rate` is the share of
    pairs of samples for one prompt, one of each policy, that have more gold than the rival's, a tie counting one
    half, over the last gold-scored steps: runs of one seed answer the same prompts.
    """
    won = _win_rate(own, rival) if rival else None
    return own.figures | _differences(own.figures, rival.figures if rival else None) | {"win_rate": won}


def pool_figures(own: Pool, rival: Pool | None) -> Figures:
    """Best-of-n of a run's reward on its pool, and against its rival's on the same pool.

    `gold_final` is gold at the largest n, `gold_peak` its largest value over n, `n_at_gold_peak` and
    `kl_nats_at_gold_peak` where; `gap_final` as of `best_of_n_points`; `win_rate` the chance that its choice at the
    largest n has more gold than the rival's, a tie counting one half.
    """
    figures, theirs, won = _pool_summary(own), None, None
    if rival is not None and np.array_equal(own.gold, rival.gold):  # else they chose from different responses
        theirs = _pool_summary(rival)
        won = float(best_of_n_win_rate(own.proxy, rival.proxy, own.gold, [own.points[-1]["n"]]).mean())
    return figures | _differences(figures, theirs) | {"win_rate": won}


def measure_run(run: Run) -> Measured:
    """A run's own figures, its last judged rollouts and its pool; reads the first and last rollouts alone."""
    summary = summarise(run)
    kept = rollout_steps(run.folder)
    with_gold = set(run.steps[np.isfinite(run.series("gold"))].astype(int).tolist())
    first, last = kept[:FIRST_STEPS], kept[-LAST_STEPS:]
    scored = [step for step in kept if step in with_gold][-LAST_STEPS:]
    tables = {step: _rollouts(run.folder, step) for step in {*first, *last, *scored}}
    several = len(run.metrics[-1].get("heads") or ()) > 1
    before, after = _ends(run.series("disagreement")) if several else (None, None)
    figures: Figures = {key: summary[key] for key in ("gold_final", "gold_peak", "kl_nats_final")}
    figures |= {
        "kl_nats_at_gold_peak": summary["kl_nats_at_gold_peak"],
        "gap_final": _ends(run.gap())[1],
        "disagreement_start": before,
        "disagreement_final": after,
        "disagreement_ratio": after / before if before and after is not None else None,
        "head_correlation_start": _correlation([tables[step] for step in first]),
        "head_correlation_final": _correlation([tables[step] for step in last]),
        "accuracy": _accuracy(run.manifest),
    }
    judged = {key: samples for step in scored for key, samples in _by_prompt(step, tables[step])}
    return Measured(figures, judged, read_pool(run))


def _win_rate(own: Measured, rival: Measured) -> float | None:
    rates = [
        _wins(mine, theirs)
        for key, (prompt, mine) in own.judged.items()
        for other, theirs in [rival.judged.get(key, ("", mine))]
        if other == prompt
    ]
    return float(np.mean(rates)) if rates else None


def _wins(mine: Float[np.ndarray, "n"], theirs: Float[np.ndarray, "m"]) -> float:
    """Share of pairs of samples that `mine` wins. Samples of one number were drawn with one set of random numbers:
    such pairs are left out, since two independent samples are meant."""
    won = (mine[:, None] > theirs) + (mine[:, None] == theirs) / 2
    apart = np.ones(won.shape, dtype=np.bool_)
    if won.shape[0] == won.shape[1] > 1:
        np.fill_diagonal(apart, False)
    return float(won[apart].mean())


def _differences(own: Figures, rival: Figures | None) -> Figures:
    pairs = {key: (own[key], rival[key] if rival else None) for key in DIFFERENCES}
    return {
        f"{key}_difference": None if mine is None or theirs is None else mine - theirs
        for key, (mine, theirs) in pairs.items()
    }


def _over_seeds(seeds: list[Figures]) -> dict[str, Estimate]:
    return {key: Estimate.of([figures[key] for figures in seeds]) for key in (seeds[0] if seeds else {})}


def _mean_points(seeds: list[list[dict[str, Any]]]) -> list[dict[str, float]]:
    """Means over seeds at each n that every seed has."""
    by_n = [{point["n"]: point for point in points} for points in seeds]
    shared = [n for n in by_n[0] if all(n in points for points in by_n)]
    means = {key: [float(np.mean([points[n][key] for points in by_n])) for n in shared] for key in CURVE_KEYS}
    return [dict(zip(CURVE_KEYS, values, strict=True)) for values in zip(*means.values(), strict=True)]


def _pool_summary(pool: Pool) -> Figures:
    top, largest = max(pool.points, key=lambda point: point["gold"]), pool.points[-1]
    return {
        "gold_final": largest["gold"],
        "gold_peak": top["gold"],
        "n_at_gold_peak": float(top["n"]),
        "kl_nats_at_gold_peak": top["kl_nats"],
        "gap_final": largest["gap"],
    }


def read_pool(run: Run) -> Pool | None:
    """The pool that the file beside the run names; None where there is none."""
    link = run.folder.parent / POOL_LINK
    if not link.is_file():
        return None
    try:
        record = json.loads(link.read_text())
        tensors = load_file(link.parent / record["scores"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{link}: its scores cannot be read ({error}); run `goldilocks study` again"
        ) from error
    heads, gold = torch.from_numpy(tensors["heads"]), tensors["gold"].astype(np.float64)
    aggregation = TypeAdapter[Any](Aggregation).validate_python(run.config["aggregation"])
    proxy = aggregation(heads.flatten(1)).numpy().reshape(gold.shape).astype(np.float64)
    own = "own"
    return Pool(proxy, gold, best_of_n_points(proxy[None], {own: proxy}, gold, record["ns"])[own])


def _rollouts(folder: Path, step: int) -> pa.Table:
    path = folder / "rollouts" / f"step_{step:06d}.parquet"
    try:
        return pq.read_table(path, columns=["group", "prompt", "gold", "scores"], use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from error


def _by_prompt(step: int, table: pa.Table) -> list[tuple[tuple[int, int], tuple[str, np.ndarray]]]:
    """Prompt and gold of each group's samples, those without gold left out."""
    groups, prompts = table["group"].to_numpy(), table["prompt"].to_pylist()
    gold = table["gold"].to_numpy().astype(float)
    rows = {int(group): np.flatnonzero((groups == group) & np.isfinite(gold)) for group in np.unique(groups)}
    return [((step, group), (prompts[at[0]], gold[at])) for group, at in rows.items() if len(at)]


def _correlation(tables: list[pa.Table]) -> float | None:
    """Mean Pearson correlation of two heads over the rows of these rollouts; None with one head."""
    if not tables:
        return None
    scores = np.array([row for table in tables for row in table["scores"].to_pylist()], dtype=np.float64)
    return head_correlation(scores.T)


def _accuracy(manifest: Mapping[str, Any]) -> float | None:
    figures = (manifest.get("parents") or {}).get("reward", {}).get("figures") or {}
    return _finite(figures.get("mean_accuracy_on_gold"))


def _ends(values: Float[np.ndarray, "steps"]) -> tuple[float | None, float | None]:
    """First and last value of the moving mean."""
    smooth = moving_mean(values)
    known = smooth[np.isfinite(smooth)]
    return (float(known[0]), float(known[-1])) if len(known) else (None, None)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
