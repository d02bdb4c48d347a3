"""Which budget to spend, from the gold that runs with different budgets ended with.

The rule. The best budget is the one with the highest mean gold over seeds. Every other is compared with it seed by
seed, because runs of one seed share their start policy and their reward data, and what these add to gold cancels.
Recommended is the largest budget whose gold is, by the lower end of the 95% t interval of that difference, at most
epsilon below the best. The best budget differs from itself by nothing, so there always is one.

Sizes here: `budgets`, `seeds`, `draws` bootstrap samples of the seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import stdtrit

from framework.analysis.comparison import Estimate
from framework.seeding import numpy_generator

DRAWS = 2000
"""Bootstrap samples of the seeds."""
TOLERATED_SHARE = 0.1
"""Of the gain that the best budget brought over the start policy: how much of it may be given up by default."""


@dataclass(frozen=True)
class BudgetGold:
    """What a budget brought."""

    budget: float
    """Nats per sequence asked for."""
    gold: Estimate
    """Over seeds, in gold's units."""
    below_best: Estimate
    """The best budget's gold less this one's, seed by seed, in gold's units."""
    is_close: bool
    """Whether the loss is at most epsilon with the stated confidence."""


@dataclass(frozen=True)
class Advice:
    """The recommended budget, in nats per sequence."""

    budget: float
    interval: tuple[float, float] | None
    """95% percentiles of what the rule recommends on bootstrap samples of the seeds; None with one seed."""
    best_budget: float
    """The budget with the highest mean gold."""
    epsilon: float
    """Gold units that may be given up."""
    num_seeds: int
    rows: list[BudgetGold]
    sentence: str


def recommend(
    gold: Mapping[float, Mapping[int, float]], start: float | None, epsilon: float | None = None
) -> Advice | None:
    """The advice from gold at the end of runs, by budget and seed; None where fewer than two budgets have any.

    Args:
        gold: mean gold at the end of the run, in gold's units, by nats asked for and seed.
        start: mean gold of the start policy; None where it was not measured.
        epsilon: gold units that may be given up; by default `TOLERATED_SHARE` of what the best budget gained over
            the start, and nothing where it gained nothing or the start is not known. A fixed share of the gain, rather
            than a standard error, keeps the tolerance from growing with the noise.
    """
    assert epsilon is None or epsilon >= 0, epsilon
    budgets = sorted(budget for budget, seeds in gold.items() if seeds)
    if len(budgets) < 2:
        return None
    seeds = sorted({seed for budget in budgets for seed in gold[budget]})
    values = np.array([[gold[budget].get(seed, np.nan) for seed in seeds] for budget in budgets])
    best = int(np.nanmean(values, axis=1).argmax())
    if epsilon is None:
        gain = 0.0 if start is None else float(np.nanmean(values[best])) - start
        epsilon = TOLERATED_SHARE * max(gain, 0.0)
    close = close_to_best(values[None], epsilon)[0]
    chosen = int(np.flatnonzero(close)[-1])
    rows = [
        BudgetGold(
            budget,
            Estimate.of([value for value in own.tolist() if np.isfinite(value)]),
            Estimate.of([loss for loss in (values[best] - own).tolist() if np.isfinite(loss)]),
            bool(is_close),
        )
        for budget, own, is_close in zip(budgets, values, close, strict=True)
    ]
    interval = _interval(budgets, values, epsilon)
    sentence = _sentence(budgets, chosen, best, interval, epsilon, len(seeds))
    return Advice(budgets[chosen], interval, budgets[best], epsilon, len(seeds), rows, sentence)


def close_to_best(
    values: Float[np.ndarray, "draws budgets seeds"], epsilon: float
) -> Bool[np.ndarray, "draws budgets"]:
    """Which budgets are, with confidence, at most epsilon below the best one of each draw; NaN is a run not there."""
    known = np.isfinite(values)
    means = np.where(known, values, 0.0).sum(axis=2) / np.maximum(known.sum(axis=2), 1)
    best = np.where(known.any(axis=2), means, -np.inf).argmax(axis=1)
    loss = np.take_along_axis(values, best[:, None, None], axis=1) - values
    paired = np.isfinite(loss)
    count = paired.sum(axis=2)
    mean = np.where(paired, loss, 0.0).sum(axis=2) / np.maximum(count, 1)
    squares = np.where(paired, np.square(loss - mean[:, :, None]), 0.0).sum(axis=2)
    freedom = np.maximum(count - 1, 1)
    most = mean + stdtrit(freedom, 0.975) * np.sqrt(squares / freedom / np.maximum(count, 1))
    close = (count > 1) & (most <= epsilon)
    close[np.arange(len(values)), best] = True
    return np.asarray(close)


def _interval(
    budgets: list[float], values: Float[np.ndarray, "budgets seeds"], epsilon: float
) -> tuple[float, float] | None:
    """95% percentiles of the rule's budget over bootstrap samples of the seeds."""
    num_seeds = values.shape[1]
    if num_seeds < 2:
        return None
    drawn: Int[np.ndarray, "draws seeds"] = numpy_generator("seeds of an advice").integers(
        num_seeds, size=(DRAWS, num_seeds)
    )
    close = close_to_best(values[:, drawn].transpose(1, 0, 2), epsilon)
    chosen = np.array(budgets)[close.shape[1] - 1 - close[:, ::-1].argmax(axis=1)]
    low, high = np.quantile(chosen, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


def _sentence(
    budgets: list[float],
    chosen: int,
    best: int,
    interval: tuple[float, float] | None,
    epsilon: float,
    num_seeds: int,
) -> str:
    ask = f"Ask for {budgets[chosen]:g} nats"
    if interval is None:
        return f"{ask}, the budget with the highest gold. One seed says nothing of other seeds: run more."
    spread = f"Over samples of the {num_seeds} seeds the advice is between {interval[0]:g} and {interval[1]:g} nats."
    if chosen == best == len(budgets) - 1:
        why = "gold was highest at the largest budget tried, and a larger one may be better still"
    elif chosen == best:
        why = f"gold was highest there, and no larger budget is sure to lose at most {epsilon:.3g} of it"
    else:
        why = f"the largest budget sure to lose at most {epsilon:.3g} gold against the best, {budgets[best]:g} nats"
    return f"{ask}: {why}. {spread}"
