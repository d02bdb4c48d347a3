"""A sweep's table, analysed: per method the fits and their peaks, what is lost past them, budgets held, and advice."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from framework.analysis.advice import Advice, recommend
from framework.analysis.alarms import AlarmLead, alarm_leads
from framework.analysis.comparison import Estimate
from framework.analysis.forms import FORMS
from framework.analysis.frontier import Fit, Points, fit_points
from framework.analysis.goodness import Goodness, goodness, never_falls_as_well, slope_past, verdict
from framework.analysis.over_optimisation import OverOptimisation, over_optimisation
from framework.analysis.reached import BudgetEnd, TrialEnd, budget_ends, by_seed, trial_end
from framework.analysis.sweep_columns import OPTIMISERS, Optimiser
from framework.analysis.sweep_table import SweepTable, TrialCurve

OWN_FORM: dict[Optimiser, str] = {"rl": "rl", "best_of_n": "bon"}
"""What arXiv 2210.10760 found for each optimiser; a quadratic in KL is fitted beside it."""
NOT_WRITTEN = ("points", "draws")
"""Fields that hold no figures of their own, but what figures are made from."""


@dataclass(frozen=True, eq=False)
class Frontier:
    """Gold against sqrt(KL) of one method by one optimiser."""

    optimiser: Optimiser
    points: Points
    num_points: int
    num_dropped: int
    """Rows left out for want of gold or KL."""
    fits: list[Fit]
    """The optimiser's own form with and without intercept, then the quadratic; those that the points determine."""
    goodness: list[Goodness]
    """Of the fits and of the isotonic curve."""
    verdict: str
    """What the held-out seeds say, or why nothing was fitted."""
    slope_past_peak: Estimate | None
    """Of the points past the first fit's peak, in gold per sqrt(nats); None where it has no peak."""
    losses: OverOptimisation | None
    """Of the first fit."""

    @property
    def main(self) -> Fit | None:
        """The fit to read: the optimiser's own form, R0 fitted too."""
        return self.fits[0] if self.fits else None


@dataclass(frozen=True, eq=False)
class MethodAnalysis:
    """Everything about one curve of a sweep."""

    method: str
    frontiers: dict[str, Frontier]
    """By optimiser, those that the method has rows of."""
    trials: list[TrialEnd]
    """How each complete trial ended."""
    budgets: list[BudgetEnd]
    """The same over seeds, by budget: asked against reached; last, the trials without one."""
    statuses: dict[str, int]
    """Trials with rows, by status."""
    advice: Advice | None
    """None where fewer than two budgets have gold."""
    alarms: list[AlarmLead]
    """What warnings that need no gold were worth, of signals that the trials logged; the last is the control."""

    @property
    def by_budget(self) -> dict[float, BudgetEnd]:
        """Those of `budgets` that were asked for one."""
        return {row.budget: row for row in self.budgets if row.budget is not None}


@dataclass(frozen=True, eq=False)
class SweepAnalysis:
    """A sweep, analysed."""

    methods: dict[str, MethodAnalysis]
    num_rows: int
    """Of the table."""

    @property
    def num_dropped(self) -> int:
        """Rows of the table that no curve could be fitted to, for want of gold or KL."""
        return sum(
            frontier.num_dropped for method in self.methods.values() for frontier in method.frontiers.values()
        )

    def to_json(self) -> dict[str, Any]:
        """Every figure, as plain JSON values; what does not exist is null."""
        dropped = {
            name: {optimiser: frontier.num_dropped for optimiser, frontier in method.frontiers.items()}
            for name, method in self.methods.items()
        }
        return {
            "rows": self.num_rows,
            "dropped": {"total": self.num_dropped, "methods": dropped},
            "methods": {name: _plain(method) for name, method in self.methods.items()},
        }


def analyse_sweep(table: SweepTable, epsilon: float | None = None) -> SweepAnalysis:
    """The analysis of every method of the table.

    Args:
        epsilon: gold units that the advice may give up; see `recommend`.
    """
    methods = {method: _analyse_method(table, method, epsilon) for method in table.methods}
    return SweepAnalysis(methods, table.data.num_rows)


def fit_frontier(points: Points, optimiser: Optimiser, curves: Sequence[TrialCurve]) -> Frontier:
    """The fits of these points, and of the curves that they are of what they lose.

    However clear the slopes of a fitted form are, its peak is not supported where the points past it do not clearly
    fall by themselves, or where a curve that never falls predicts held-out seeds as well: a hump fitted to gold that
    only levels off has a clear peak too.
    """
    wanted = [(OWN_FORM[optimiser], True), (OWN_FORM[optimiser], False), ("quadratic", True)]
    fits = [fit for form, intercept in wanted if (fit := fit_points(points, FORMS[form], intercept))]
    sizes = len(points.d), points.num_dropped
    if not fits or fits[0].form != OWN_FORM[optimiser] or not fits[0].intercept:
        why = "no row has both gold and KL" if not len(points.d) else "gold is known at too few values of √KL"
        return Frontier(optimiser, points, *sizes, [], [], f"Nothing can be fitted: {why}.", None, None)
    rows = goodness(fits, points)
    fits = [_with_checked_peak(fit, points, rows[-1]) for fit in fits]
    top = fits[0].peak.d
    return Frontier(
        optimiser,
        points,
        *sizes,
        fits,
        rows,
        verdict(fits[0], rows[-1]),
        None if top is None else slope_past(points, top),
        over_optimisation(fits[0], curves),
    )


def _analyse_method(table: SweepTable, method: str, epsilon: float | None) -> MethodAnalysis:
    curves = {optimiser: table.curves_of(method, optimiser) for optimiser in OPTIMISERS}
    frontiers: dict[str, Frontier] = {
        optimiser: fit_frontier(Points.of(own), optimiser, own) for optimiser, own in curves.items() if own
    }
    ends = [trial_end(curve) for curve in curves["rl"] if curve.is_complete]
    budgets = budget_ends(ends)
    asked = [row.budget for row in budgets if row.budget is not None]
    gold = {budget: by_seed([end for end in ends if end.budget == budget], "gold") for budget in asked}
    start = frontiers["rl"].points.start if "rl" in frontiers else None
    return MethodAnalysis(
        method=method,
        frontiers=frontiers,
        trials=ends,
        budgets=budgets,
        statuses=dict(Counter(curve.status for curve in curves["rl"])),
        advice=recommend(gold, start, epsilon),
        alarms=_alarms(method, curves["rl"]),
    )


def _alarms(method: str, curves: Sequence[TrialCurve]) -> list[AlarmLead]:
    # A table from elsewhere may number no steps.
    numbered = [curve for curve in curves if np.isfinite(curve.position).all()]
    leads = alarm_leads({method: numbered})
    return leads if any(lead.num_turned or lead.num_unturned for lead in leads[:-1]) else []


def _with_checked_peak(fit: Fit, points: Points, isotonic: Goodness) -> Fit:
    if not fit.peak.supported:
        return fit
    if slope_past(points, fit.peak.d or 0.0).sign >= 0:
        why = f"the points past the fitted peak (√KL {fit.peak.d:.2f}) do not clearly fall by themselves"
    elif never_falls_as_well(fit, isotonic):
        why = "a curve that never falls predicts held-out seeds as well"
    else:
        return fit
    peak = replace(fit.peak, supported=False, reason=f"no peak in this range: {why}", d_interval=None)
    return replace(fit, peak=peak)


def _plain(value: Any) -> Any:
    """Dataclasses as objects, tuples as lists, and no number that JSON has not."""
    if is_dataclass(value):
        names = [field.name for field in fields(value) if field.name not in NOT_WRITTEN]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
