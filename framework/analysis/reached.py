"""KL budgets asked for against what runs reached, over the last fifth of each run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from framework.analysis.comparison import Estimate
from framework.analysis.sweep_table import TrialCurve

TOLERANCE = 0.1
"""Share of the budget that the mean KL may be off."""


@dataclass(frozen=True)
class TrialEnd:
    """Means of one trial over the last fifth of its steps; None where nothing was measured there."""

    trial: str
    seed: int
    status: str
    budget: float | None
    """Nats per sequence asked for."""
    kl_nats: float | None
    ratio: float | None
    """Reached over asked for."""
    within: bool | None
    """Whether the two are within `TOLERANCE` of the budget; None without a budget or a KL."""
    gold: float | None
    """In gold's units; of a trial with no gold there, the last that was measured in the second half of the run."""
    proxy: float | None
    """In reference standard deviations."""
    gap: float | None
    """Standardised proxy less standardised gold, in standard deviations at step 0."""
    coef: float | None
    """Reward units per nat."""
    num_steps: int
    """Of the whole trial."""


@dataclass(frozen=True)
class BudgetEnd:
    """All seeds of one method with one budget, each by the last fifth of its steps."""

    budget: float | None
    """None for trials without a budget."""
    num_seeds: int
    num_judged: int
    """Trials with a budget and KL."""
    num_within: int
    """Of those: whose mean KL is within `TOLERANCE` of the budget."""
    kl_nats: Estimate
    gold: Estimate
    proxy: Estimate
    gap: Estimate
    coef: Estimate
    num_steps: tuple[int, int]
    """Of the shortest trial, and of the longest."""


def trial_end(curve: TrialCurve) -> TrialEnd:
    """How one trial ended."""
    names = ("kl_nats", "proxy", "gap", "kl_coef")
    kl, proxy, gap, coef = (mean_at_end(curve, curve.series(name)) for name in names)
    ratio = kl / curve.budget if kl is not None and curve.budget else None
    return TrialEnd(
        trial=curve.trial,
        seed=curve.seed,
        status=curve.status,
        budget=curve.budget,
        kl_nats=kl,
        ratio=ratio,
        within=None if ratio is None else abs(ratio - 1) <= TOLERANCE,
        gold=_last_gold(curve),
        proxy=proxy,
        gap=gap,
        coef=coef,
        num_steps=curve.data.num_rows,
    )


def budget_ends(ends: Sequence[TrialEnd]) -> list[BudgetEnd]:
    """One row per budget, from the smallest on, then one of the trials without a budget."""
    budgets: list[float | None] = [*sorted({end.budget for end in ends if end.budget is not None})]
    budgets += [None] if any(end.budget is None for end in ends) else []
    return [_budget_end(budget, [end for end in ends if end.budget == budget]) for budget in budgets]


def _budget_end(budget: float | None, ends: Sequence[TrialEnd]) -> BudgetEnd:
    within = [end.within for end in ends if end.within is not None]
    names = ("kl_nats", "gold", "proxy", "gap", "coef")
    figures = {name: Estimate.of(list(by_seed(ends, name).values())) for name in names}
    steps = [end.num_steps for end in ends]
    return BudgetEnd(
        budget=budget,
        num_seeds=len({end.seed for end in ends}),
        num_judged=len(within),
        num_within=sum(within),
        num_steps=(min(steps), max(steps)),
        **figures,
    )


def by_seed(ends: Iterable[TrialEnd], name: str) -> dict[int, float]:
    """One figure of these trials by seed, averaged where a seed has several; seeds without it are left out."""
    values: dict[int, list[float]] = {}
    for end in ends:
        if (value := getattr(end, name)) is not None:
            values.setdefault(end.seed, []).append(value)
    return {seed: float(np.mean(own)) for seed, own in values.items()}


def mean_at_end(curve: TrialCurve, values: Float[np.ndarray, "steps"]) -> float | None:
    """Mean over the last fifth of a trial's steps; None where nothing was measured there."""
    return _mean(values[curve.last_fifth])


def _last_gold(curve: TrialCurve) -> float | None:
    gold = curve.series("gold")
    if (at_end := mean_at_end(curve, gold)) is not None:
        return at_end
    # Gold of the first half is that of a policy on its way, or of the start policy.
    late = gold[len(gold) // 2 :]
    known = late[np.isfinite(late)]
    return float(known[-1]) if len(known) else None


def _mean(values: Float[np.ndarray, "steps"]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
