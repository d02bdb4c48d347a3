"""One curve of an experiment: how its runs ended, point by point over seeds, its fits, and what to ask for."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from framework.analysis.advice import Advice, Choice, recommend
from framework.analysis.columns import BEST_OF_N
from framework.analysis.frontier import Points
from framework.analysis.over_seeds import Estimate, share_of
from framework.analysis.past_peak import Frontier, fit_frontier
from framework.analysis.table import RunRecord, Table
from framework.measure import Outcome, outcome_of


@dataclass(frozen=True)
class RunOutcome:
    """How one complete run ended."""

    run: str
    point: str
    seed: int
    method: str
    status: str
    outcome: Outcome

    @property
    def choice(self) -> Choice:
        """What was asked of it."""
        return Choice(self.point, self.outcome.budget)


@dataclass(frozen=True)
class PointOutcome:
    """All complete runs of one point, over seeds; figures are those at the end of the runs."""

    choice: Choice
    method: str
    num_seeds: int
    steps: tuple[int, int]
    """Of the shortest run, and of the longest."""
    held: Estimate
    """Share of the runs with a budget and KL that held it."""
    num_held: int
    kl_nats: Estimate
    gold: Estimate
    proxy: Estimate
    gap: Estimate
    kl_coef: Estimate


@dataclass(frozen=True, eq=False)
class CurveAnalysis:
    """Everything about one curve of an experiment."""

    curve: str
    frontiers: dict[str, Frontier]
    """By method, best-of-n among them."""
    outcomes: list[RunOutcome]
    points: list[PointOutcome]
    """The least KL first: by budget, the points without one last and by the KL they reached."""
    statuses: dict[str, int]
    """Of all runs; those without a row too."""
    advice: Advice | None


def analyse_curve(
    table: Table, curve: str, records: Sequence[RunRecord], epsilon: float | None = None
) -> CurveAnalysis:
    """The analysis of one curve name of the table; `epsilon` is that of `recommend`."""
    curves = table.curves_of(curve)
    frontiers = {}
    for method in dict.fromkeys(each.method for each in curves):
        own = table.curves_of(curve, method)
        frontiers[method] = fit_frontier(Points.of(own), method, own)
    outcomes = [
        RunOutcome(run.run, run.point, run.seed, run.method, run.status, outcome_of(run))
        for run in curves
        if run.method != BEST_OF_N and run.is_complete
    ]
    points = point_outcomes(outcomes)
    choices = [point.choice for point in points]
    # Where budgets are asked, the advice is one of them.
    asked = [choice for choice in choices if choice.budget is not None] or choices
    gold = {c: by_seed([run for run in outcomes if run.choice == c], "gold_end") for c in asked}
    starts = [each.points.start for method, each in frontiers.items() if method != BEST_OF_N]
    advice = recommend(gold, next((start for start in starts if start is not None), None), epsilon)
    statuses = Counter[str](record.status for record in records if record.curve == curve)
    return CurveAnalysis(curve, frontiers, outcomes, points, dict(statuses), advice)


def point_outcomes(outcomes: Sequence[RunOutcome]) -> list[PointOutcome]:
    """One row per point and method, in the order of `CurveAnalysis.points`."""
    grouped: dict[tuple[Choice, str], list[RunOutcome]] = {}
    for run in outcomes:
        grouped.setdefault((run.choice, run.method), []).append(run)
    rows = []
    for (choice, method), runs in grouped.items():
        held = [run.outcome.budget_held for run in runs if run.outcome.budget_held is not None]
        steps = [run.outcome.steps for run in runs]
        names = ("kl_nats", "gold", "proxy", "gap", "kl_coef")
        figures = {name: Estimate.of(list(by_seed(runs, f"{name}_end").values())) for name in names}
        seeds, share = len({run.seed for run in runs}), share_of(sum(held), len(held))
        rows.append(PointOutcome(choice, method, seeds, (min(steps), max(steps)), share, sum(held), **figures))
    return sorted(rows, key=lambda row: (row.choice.budget is None, row.choice.budget or row.kl_nats.mean or 0.0))


def by_seed(outcomes: Iterable[RunOutcome], name: str) -> dict[int, float]:
    """One figure of these runs by seed, averaged where a seed has several; seeds without it are left out."""
    values: dict[int, list[float]] = {}
    for run in outcomes:
        if (value := getattr(run.outcome, name)) is not None:
            values.setdefault(run.seed, []).append(value)
    return {seed: float(np.mean(own)) for seed, own in values.items()}
