"""Every variant against a baseline of the same condition, point and seed, by its runs and by best-of-n; laid out as by
Coste et al. (arXiv 2310.02743): gold at the end and at the peak, and the win rate."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from framework.analysis.best_of_n import Pool, best_of_n_win_rate, read_pool
from framework.analysis.columns import BEST_OF_N
from framework.analysis.over_seeds import Estimate, holm, paired_difference, share_over_seeds
from framework.analysis.records import RunRecord
from framework.analysis.run_folder import manifest_of, read_rollouts, rollout_steps
from framework.analysis.table import Curve, Table
from framework.measure import Outcome, outcome_of

RUNS = "runs"  # where a comparison holds the figures of runs; those of best-of-n are apart, as it takes no training
LAST_STEPS = 10  # gold-scored steps whose rollouts stand for a run's end
OWN = (
    "gold_end", "gold_peak", "gold_peak_at", "kl_nats_end", "kl_nats_at_gold_peak", "gap_end", "ended_start", "ended_end",
    "disagreement_start", "disagreement_end", "head_correlation_start", "head_correlation_end",
)  # fmt: skip
"""Figures of an `Outcome` that are shown for each variant."""
DIFFERENCES = ("gold_end", "gold_peak")
TESTED = (*(f"{name}_difference" for name in DIFFERENCES), "win_rate")


class Cell(NamedTuple):
    """What is compared with the baseline of its condition and point."""

    condition: str
    variant: str
    point: str

    @property
    def name(self) -> str:
        """Variant and point."""
        return " ".join(filter(None, (self.variant, self.point)))


@dataclass(frozen=True)
class Comparison:
    """An experiment with a baseline, measured."""

    baseline: str
    conditions: tuple[str, ...]
    variants: tuple[str, ...]
    points: tuple[str, ...]  # of the runs; like conditions, one empty name where there is none
    figures: Mapping[str, Mapping[Cell, Mapping[str, Estimate]]]
    """Of `RUNS`, whatever their methods, and of `BEST_OF_N` where a pool was scored; see `compare`."""
    marks: Mapping[str, Mapping[Cell, Mapping[str, int]]]
    """1 or -1 where a figure of `TESTED` is clearly better or worse than the baseline's, after Holm's correction over
    the variants that are compared with that baseline; else 0."""

    def to_json(self) -> dict[str, Any]:
        """As `summary.json` holds it: one record per cell of the runs and of best-of-n."""
        rows = [
            {"by": by, **cell._asdict()}
            | {name: asdict(estimate) for name, estimate in figures.items()}
            | {"marks": dict(self.marks[by][cell])}
            for by, cells in self.figures.items()
            for cell, figures in cells.items()
        ]
        return {"baseline": self.baseline, "rows": rows}


def compare(table: Table, records: Sequence[RunRecord], baseline: str) -> Comparison:
    """The comparison of all complete runs with those of the baseline.

    Figures are those of `OWN`, at the end `_end` and at the start policy `_start`, with `disagreement_ratio` of the
    two; `accuracy` of the mean reward on held-out pairs, by gold; and against the baseline's run of the same seed
    `gold_end_difference`, `gold_peak_difference` and `win_rate`. The win rate of runs is the share of pairs of samples
    for one prompt, one of each policy, that have more gold than the baseline's, a tie counting one half, over the last
    gold-scored steps: runs of one seed answer the same prompts. That of best-of-n is the chance that its choice at the
    largest n has more gold than the baseline's from the same pool. Without folders in `records` there is no win rate; a
    `UserError` where a file of a run cannot be read.
    """
    folders = {(record.run, record.seed): record.folder for record in records if record.folder}
    pools = {(record.curve, record.seed): record.folder for record in reversed(records) if record.folder}
    members: dict[str, dict[Cell, dict[int, _Member]]] = {}
    for curve in table.curves:
        if curve.is_complete:
            cell = Cell(curve.condition, curve.variant, curve.point)
            is_run = curve.method != BEST_OF_N
            folder = folders.get((curve.run, curve.seed)) if is_run else pools.get((curve.curve, curve.seed))
            own = _Member(outcome_of(curve))
            if folder is not None:
                judged, pool = (_judged(curve, folder), None) if is_run else ({}, read_pool(folder))
                own = _Member(own.outcome, _accuracy(folder), judged, pool)
            members.setdefault(RUNS if is_run else BEST_OF_N, {}).setdefault(cell, {})[curve.seed] = own
    figures: dict[str, dict[Cell, dict[str, Estimate]]] = {by: {} for by in members}
    for by, cells in members.items():
        for cell, seeds in cells.items():
            rivals = cells.get(cell._replace(variant=baseline), {})
            figures[by][cell] = _figures(seeds, {} if cell.variant == baseline else rivals)
    runs = list(figures.get(RUNS, {}))
    conditions, variants, points = (tuple(dict.fromkeys(getattr(cell, name) for cell in runs)) for name in Cell._fields)
    marks = {by: _marks(cells) for by, cells in figures.items()}
    return Comparison(baseline, conditions, variants, points, figures, marks)


@dataclass(frozen=True, eq=False)
class _Member:
    """What the comparison needs of one run, or of one best-of-n curve."""

    outcome: Outcome
    accuracy: float | None = None
    judged: Mapping[tuple[int, int, str], np.ndarray] = field(default_factory=dict)
    """Gold of a run's samples at its last gold-scored steps, by step, group and prompt."""
    pool: Pool | None = None


def _figures(own: Mapping[int, _Member], rivals: Mapping[int, _Member]) -> dict[str, Estimate]:
    outcomes = [member.outcome for member in own.values()]
    figures = {name: Estimate.of([getattr(outcome, name) for outcome in outcomes]) for name in OWN}
    spreads = [(outcome.disagreement_start, outcome.disagreement_end) for outcome in outcomes]
    ratios = [after / before if before and after is not None else None for before, after in spreads]
    figures["disagreement_ratio"] = Estimate.of(ratios)
    figures["accuracy"] = share_over_seeds([member.accuracy for member in own.values()])
    pairs = {seed: (member, rivals[seed]) for seed, member in own.items() if seed in rivals}
    # Best-of-n curves are compared where they chose from the same responses.
    pools = {seed: (mine.pool, theirs.pool) for seed, (mine, theirs) in pairs.items()}
    alike = {seed: pairs[seed] for seed, (a, b) in pools.items() if not (a and b) or np.array_equal(a.gold, b.gold)}
    for name in DIFFERENCES:
        ends = [{seed: getattr(pair[i].outcome, name) for seed, pair in alike.items()} for i in (0, 1)]
        figures[f"{name}_difference"] = paired_difference(*ends)
    figures["win_rate"] = share_over_seeds([_win_rate(*pair) for pair in alike.values()])
    return figures


def _marks(cells: Mapping[Cell, Mapping[str, Estimate]]) -> dict[Cell, dict[str, int]]:
    """Holm's correction, over the variants of each condition and point, figure by figure."""
    marks: dict[Cell, dict[str, int]] = {cell: dict.fromkeys(TESTED, 0) for cell in cells}
    for family in dict.fromkeys(cell._replace(variant="") for cell in cells):
        members = [cell for cell in cells if cell._replace(variant="") == family]
        for name in TESTED:
            clear = holm([cells[cell][name].p_value for cell in members])
            for cell, is_clear in zip(members, clear, strict=True):
                mean = cells[cell][name].mean
                if is_clear and mean is not None:
                    marks[cell][name] = int(np.sign(mean - (0.5 if name == "win_rate" else 0.0)))
    return marks


def _win_rate(own: _Member, rival: _Member) -> float | None:
    if own.pool is not None and rival.pool is not None:
        largest = own.pool.points[-1]["n"]
        return float(best_of_n_win_rate(own.pool.proxy, rival.pool.proxy, own.pool.gold, [largest]).mean())
    rates = [wins(mine, rival.judged[key]) for key, mine in own.judged.items() if key in rival.judged]
    return float(np.mean(rates)) if rates else None


def wins(mine: Float[np.ndarray, "n"], theirs: Float[np.ndarray, "m"]) -> float:
    """Share of pairs of samples that `mine` wins. Samples of one number were drawn with one set of random numbers:
    such pairs are left out, since two independent samples are meant."""
    won = (mine[:, None] > theirs) + (mine[:, None] == theirs) / 2
    apart = np.ones(won.shape, dtype=np.bool_)
    if won.shape[0] == won.shape[1] > 1:
        np.fill_diagonal(apart, False)
    return float(won[apart].mean())


def _judged(curve: Curve, folder: Path) -> dict[tuple[int, int, str], np.ndarray]:
    """Gold of each group's samples at the last gold-scored steps, those without gold left out."""
    with_gold = set(curve.position[np.isfinite(curve.series("gold"))].astype(int).tolist())
    judged = {}
    for step in [step for step in rollout_steps(folder) if step in with_gold][-LAST_STEPS:]:
        rows = read_rollouts(folder, step, ["group", "prompt", "gold"])
        groups, prompts = rows["group"].to_numpy(), rows["prompt"].to_pylist()
        gold = rows["gold"].to_numpy().astype(float)
        for group in np.unique(groups):
            at = np.flatnonzero((groups == group) & np.isfinite(gold))
            if len(at):
                judged[step, int(group), prompts[at[0]]] = gold[at]
    return judged


def _accuracy(folder: Path) -> float | None:
    figures = (manifest_of(folder).get("parents") or {}).get("reward", {}).get("figures") or {}
    value = figures.get("mean_accuracy_on_gold")
    return float(value) if value is not None and np.isfinite(value) else None
