"""A run, a study or a sweep, analysed, curve by curve and as a whole: everything that its report shows."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from framework.analysis.advice import Advice, Choice, recommend
from framework.analysis.alarms import CONTROL, AlarmLead, alarm_leads
from framework.analysis.columns import BEST_OF_N
from framework.analysis.comparison import Comparison, compare
from framework.analysis.frontier import Points
from framework.analysis.over_seeds import Estimate, share_of
from framework.analysis.past_peak import Frontier, fit_frontier
from framework.analysis.records import RunRecord
from framework.analysis.table import Table
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
    steps: tuple[int, int]  # of the shortest run, and of the longest
    held: Estimate  # share of the runs with a budget and KL that held it
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
    frontiers: dict[str, Frontier]  # by method, best-of-n among them
    outcomes: list[RunOutcome]
    points: list[PointOutcome]  # the least KL first: by budget, the points without one last and by the KL they reached
    statuses: dict[str, int]  # of all runs; those without a row too
    advice: Advice | None


@dataclass(frozen=True, eq=False)
class Experiment:
    """Runs over conditions, variants, points and seeds, with what is known of them."""

    name: str
    table: Table
    records: Sequence[RunRecord]  # all its runs, those that never began too
    baseline: str | None  # the variant that the others are compared with, if any
    curves: dict[str, CurveAnalysis]
    comparison: Comparison | None
    leads: list[AlarmLead]  # of signals that the runs logged; the last of each curve is the control

    @property
    def num_dropped(self) -> int:
        """Rows that no curve could be fitted to, for want of gold or KL."""
        return sum(f.num_dropped for curve in self.curves.values() for f in curve.frontiers.values())

    def to_json(self) -> dict[str, Any]:
        """What `summary.json` of an experiment holds: every figure as plain values; what does not exist is null."""
        return {
            "rows": self.table.data.num_rows,
            "dropped": self.num_dropped,
            "baseline": self.baseline,
            "curves": {name: _plain(curve) for name, curve in self.curves.items()},
            "comparison": self.comparison and self.comparison.to_json(),
            "warning_leads": _plain(self.leads),
        }


def analyse(
    name: str, table: Table, records: Sequence[RunRecord], baseline: str | None = None, epsilon: float | None = None
) -> Experiment:
    """The analysis of the runs in a table; `epsilon` is that of `recommend`. `records` has their folders where rollouts
    and pools are to be read; they are `table.records` where the table is all there is."""
    leads = alarm_leads({name: [run for run in table.records if run.curve == name] for name in table.curve_names})
    told = {each.curve for each in leads if each.signal != CONTROL.name and each.num_turned + each.num_unturned}
    curves = {curve: _analyse_curve(table, curve, records, epsilon) for curve in table.curve_names}
    comparison = None if baseline is None else compare(table, records, baseline)
    return Experiment(
        name, table, records, baseline, curves, comparison, [lead for lead in leads if lead.curve in told]
    )


def _analyse_curve(table: Table, curve: str, records: Sequence[RunRecord], epsilon: float | None) -> CurveAnalysis:
    methods = dict.fromkeys(each.method for each in table.curves_of(curve))
    by_method = {method: table.curves_of(curve, method) for method in methods}
    frontiers = {method: fit_frontier(Points.of(own), method, own) for method, own in by_method.items()}
    complete = [run for run in table.records if run.curve == curve and run.is_complete]
    outcomes = [RunOutcome(c.run, c.point, c.seed, c.method, c.status, outcome_of(c)) for c in complete]
    points = point_outcomes(outcomes)
    choices = [point.choice for point in points]
    # Where budgets are asked, the advice is one of them.
    asked = [choice for choice in choices if choice.budget is not None] or choices
    gold = {c: by_seed([run for run in outcomes if run.choice == c], "gold_end") for c in asked}
    starts = [each.points.start for method, each in frontiers.items() if method != BEST_OF_N]
    start = next((start for start in starts if start is not None), None)
    ended_at = {point.choice: point.kl_nats.mean for point in points if point.choice.budget and not point.num_held}
    short = {c: kl for c, kl in ended_at.items() if kl is not None and kl < (c.budget or 0)}
    advice = recommend(gold, start, epsilon, short)
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


def _plain(value: Any) -> Any:
    """Dataclasses as objects, tuples as lists, and no number that JSON has not."""
    if isinstance(value, Outcome):
        return value.to_json()
    if is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in fields(value)}
        # Points and bootstrap samples hold no figures of their own, but what figures are made from.
        return {name: _plain(x) for name, x in held.items() if not isinstance(x, Points) and name != "draws"}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
