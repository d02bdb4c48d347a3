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
    """In gold's units; of a trial with no gold there, the last that was measured."""
    proxy: float | None
    """In reference standard deviations."""
    gap: float | None
    """Standardised proxy less standardised gold, in standard deviations at step 0."""


@dataclass(frozen=True)
class BudgetEnd:
    """All seeds of one method with one budget, each by the last fifth of its steps."""

    budget: float
    num_seeds: int
    share_within: float | None
    """Share of the seeds whose mean KL is within `TOLERANCE` of the budget."""
    kl_nats: Estimate
    gold: Estimate
    proxy: Estimate
    gap: Estimate


def trial_end(curve: TrialCurve) -> TrialEnd:
    """How one trial ended."""
    kl, proxy, gap = (_mean(curve.series(name)[curve.last_fifth]) for name in ("kl_nats", "proxy", "gap"))
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
    )


def budget_ends(ends: Sequence[TrialEnd]) -> list[BudgetEnd]:
    """One row per budget, from the smallest on; trials without a budget have none."""
    budgets = sorted({end.budget for end in ends if end.budget is not None})
    return [_budget_end(budget, [end for end in ends if end.budget == budget]) for budget in budgets]


def _budget_end(budget: float, ends: Sequence[TrialEnd]) -> BudgetEnd:
    within = [end.within for end in ends if end.within is not None]
    figures = {
        name: Estimate.of(list(by_seed(ends, name).values())) for name in ("kl_nats", "gold", "proxy", "gap")
    }
    return BudgetEnd(
        budget, len({end.seed for end in ends}), sum(within) / len(within) if within else None, **figures
    )


def by_seed(ends: Iterable[TrialEnd], name: str) -> dict[int, float]:
    """One figure of these trials by seed, averaged where a seed has several; seeds without it are left out."""
    values: dict[int, list[float]] = {}
    for end in ends:
        if (value := getattr(end, name)) is not None:
            values.setdefault(end.seed, []).append(value)
    return {seed: float(np.mean(own)) for seed, own in values.items()}


def _last_gold(curve: TrialCurve) -> float | None:
    gold = curve.series("gold")
    known = gold[np.isfinite(gold)]
    at_end = _mean(gold[curve.last_fifth])
    return at_end if at_end is not None or not len(known) else float(known[-1])


def _mean(values: Float[np.ndarray, "steps"]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
