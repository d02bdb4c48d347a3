"""Which budget to spend, from the gold that runs with different budgets ended with.

The rule. The best budget is the one with the highest mean gold over seeds; where some runs are missing, means are
those of an additive model of budgets and seeds, lest a budget be best because its seeds are. Every other is compared
with it seed by seed, because runs of one seed share their start policy and their reward data, and what these add to
gold cancels.
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
TIE = 1e-6
"""Of the highest mean in size: means that are closer than this are equal, and the smaller budget is the better one.
Their digits beyond that are the ridge's and the processor's."""
SEED_RIDGE = 1e-6
"""Weight that draws effects of seeds towards 0: it decides only between budgets that no seed links."""


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
        gold: mean gold at the end of the run, in gold's units, by nats asked for and seed; NaN is a run without.
        start: mean gold of the start policy; None where it was not measured.
        epsilon: gold units that may be given up; by default `TOLERATED_SHARE` of what the best budget gained over
            the start, and nothing where it gained nothing or the start is not known. A fixed share of the gain, rather
            than a standard error, keeps the tolerance from growing with the noise.
    """
    assert epsilon is None or epsilon >= 0, epsilon
    known = {
        budget: {seed: value for seed, value in runs.items() if np.isfinite(value)}
        for budget, runs in gold.items()
    }
    budgets = sorted(budget for budget, runs in known.items() if runs)
    if len(budgets) < 2:
        return None
    seeds = sorted({seed for budget in budgets for seed in known[budget]})
    values = np.array(
        [[known[budget].get(seed, np.nan) for seed in seeds] for budget in budgets], dtype=float
    )
    means = budget_means(values[None])[0]
    best = int(_highest(means[None])[0])
    is_given = epsilon is not None
    if epsilon is None:
        gain = 0.0 if start is None else float(means[best]) - start
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
    sentence += _reservations(values, rows[best], start, is_given)
    return Advice(budgets[chosen], interval, budgets[best], epsilon, len(seeds), rows, sentence)


def budget_means(values: Float[np.ndarray, "draws budgets seeds"]) -> Float[np.ndarray, "draws budgets"]:
    """Mean gold of each budget over all seeds, as far as runs that are missing (NaN) let it be told.

    Least squares on gold = budget + seed: the plain mean where no run is missing. Minus infinity without any run.
    """
    known = np.isfinite(values).astype(float)
    gold = np.where(known > 0, values, 0.0)
    # Effects of seeds eliminated: what is left are the normal equations of the budgets.
    share = known / (known.sum(axis=1) + SEED_RIDGE)[:, None, :]
    counts = known.sum(axis=2)
    matrix = -share @ known.transpose(0, 2, 1)
    diagonal = np.arange(values.shape[1])
    matrix[:, diagonal, diagonal] += np.where(counts > 0, counts, 1.0)
    target = gold.sum(axis=2) - (share * gold.sum(axis=1)[:, None, :]).sum(axis=2)
    means = np.linalg.solve(matrix, target[:, :, None])[:, :, 0]
    return np.where(counts > 0, means, -np.inf)


def _highest(means: Float[np.ndarray, "draws budgets"]) -> Int[np.ndarray, "draws"]:
    """The smallest budget whose mean is the highest, up to `TIE`."""
    top = means.max(axis=1, keepdims=True)
    return np.asarray((means >= top - TIE * np.abs(top)).argmax(axis=1))


def close_to_best(
    values: Float[np.ndarray, "draws budgets seeds"], epsilon: float
) -> Bool[np.ndarray, "draws budgets"]:
    """Which budgets are, with confidence, at most epsilon below the best one of each draw; NaN is a run not there."""
    best = _highest(budget_means(values))
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


def _reservations(
    values: Float[np.ndarray, "budgets seeds"], best: BudgetGold, start: float | None, is_given: bool
) -> str:
    """What a reader must know before they follow the advice."""
    text = ""
    if start is not None and best.gold.mean is not None and best.gold.mean <= start:
        text += f" No budget brought more gold than the initial policy has, {start:.3g}: it may be best to spend none."
    if start is None and not is_given:
        text += " Gold of the initial policy is not known, so no share of a gain may be given up."
    if missing := int(np.isnan(values).sum()):
        text += f" {missing} of {values.size} runs have no gold at their end; budgets are compared on seeds that both have."
    return text
