"""How far to go, from the gold that runs with different budgets, or other swept points, ended with.

The rule, said of budgets. The best budget is the one with the highest mean gold over seeds; where some runs are
missing, means are those of an additive model of budgets and seeds, lest a budget be best because its seeds are. Every
other is compared with it seed by seed, because runs of one seed share their start policy and their reward data, and
what these add to gold cancels. Recommended is the largest budget whose gold is, by the lower end of the 95% t interval
of that difference, at most epsilon below the best. Where KL is set by another key than a budget, points are in the
order of the KL that they reached. Sizes: `points`, `seeds`, `draws` bootstrap samples of the seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import stdtrit

from framework.analysis.over_seeds import Estimate
from framework.seeding import numpy_generator

DRAWS = 2000  # bootstrap samples of the seeds
TOLERATED_SHARE = 0.1
"""Of the gain that the best budget brought over the start policy: how much of it may be given up by default."""
TIE = 1e-6
"""Of the highest mean in size: means that are closer than this are equal, and the smaller budget is the better one.
Their digits beyond that are the ridge's and the processor's."""
SEED_RIDGE = 1e-6  # weight that draws effects of seeds towards 0: it decides only between budgets that no seed links


@dataclass(frozen=True)
class Choice:
    """What can be asked for: a point, and its budget in nats per sequence, None where it sets KL by another key."""

    point: str
    budget: float | None

    def __str__(self) -> str:
        return self.point if self.budget is None else f"{self.budget:g} nats"


@dataclass(frozen=True)
class PointGold:
    """What a point brought, in gold's units."""

    choice: Choice
    gold: Estimate
    below_best: Estimate  # the best point's gold less this one's, seed by seed
    is_close: bool  # whether the loss is at most epsilon with the stated confidence


@dataclass(frozen=True)
class Advice:
    """The recommended point."""

    choice: Choice
    interval: tuple[Choice, Choice] | None
    """95% percentiles of what the rule recommends on bootstrap samples of the seeds; None with one seed."""
    best: Choice
    epsilon: float  # gold units that may be given up
    num_seeds: int
    rows: list[PointGold]
    sentence: str


def recommend(
    gold: Mapping[Choice, Mapping[int, float]],
    start: float | None,
    epsilon: float | None = None,
    short: Mapping[Choice, float] = MappingProxyType({}),
) -> Advice | None:
    """The advice from gold at the end of runs, by point (the least KL first) and seed, in gold's units; NaN is a run without.
    None where fewer than two points have any.

    `start` is the mean gold of the start policy, None where it was not measured. `epsilon` is what may be given up: by
    default `TOLERATED_SHARE` of what the best point gained over the start, and nothing where it gained nothing or the
    start is not known. A standard error instead would let the tolerance grow with the noise. `short` has the KL, in nats
    per sequence, at which the runs of a budget ended where none of them came to it.
    """
    assert epsilon is None or epsilon >= 0, epsilon
    choices = [choice for choice, runs in gold.items() if np.isfinite(list(runs.values())).any()]
    if len(choices) < 2:
        return None
    known = [{seed: value for seed, value in gold[c].items() if np.isfinite(value)} for c in choices]
    seeds = sorted({seed for runs in known for seed in runs})
    values = np.array([[runs.get(seed, np.nan) for seed in seeds] for runs in known], dtype=float)
    means = point_means(values[None])
    best = int(_highest(means)[0])
    is_given = epsilon is not None
    if epsilon is None:
        gain = 0.0 if start is None else float(means[0, best]) - start
        epsilon = TOLERATED_SHARE * max(gain, 0.0)
    close = close_to_best(values[None], epsilon)[0]
    chosen = int(np.flatnonzero(close)[-1])
    rows = []
    for choice, own, is_close in zip(choices, values, close.tolist(), strict=True):
        brought, lost = (Estimate.of(each[np.isfinite(each)].tolist()) for each in (own, values[best] - own))
        rows.append(PointGold(choice, brought, lost, is_close))
    interval = _interval(choices, values, epsilon)
    advice = Advice(choices[chosen], interval, choices[best], epsilon, len(seeds), rows, "")
    reservations = _reservations(values, rows[best], start, is_given, short.get(advice.choice))
    return replace(advice, sentence=_sentence(advice) + reservations)


def point_means(values: Float[np.ndarray, "draws points seeds"]) -> Float[np.ndarray, "draws points"]:
    """Mean gold of each point over all seeds, by least squares on gold = point + seed where runs are missing (NaN); minus
    infinity without any run."""
    known = np.isfinite(values).astype(float)
    gold = np.where(known > 0, values, 0.0)
    # Effects of seeds eliminated: what is left are the normal equations of the points.
    share = known / (known.sum(axis=1) + SEED_RIDGE)[:, None, :]
    counts = known.sum(axis=2)
    matrix = -share @ known.transpose(0, 2, 1)
    diagonal = np.arange(values.shape[1])
    matrix[:, diagonal, diagonal] += np.where(counts > 0, counts, 1.0)
    target = gold.sum(axis=2) - (share * gold.sum(axis=1)[:, None, :]).sum(axis=2)
    means = np.linalg.solve(matrix, target[:, :, None])[:, :, 0]
    return np.where(counts > 0, means, -np.inf)


def _highest(means: Float[np.ndarray, "draws points"]) -> Int[np.ndarray, "draws"]:
    """The first point whose mean is the highest, up to `TIE`."""
    top = means.max(axis=1, keepdims=True)
    return np.asarray((means >= top - TIE * np.abs(top)).argmax(axis=1))


def close_to_best(values: Float[np.ndarray, "draws points seeds"], epsilon: float) -> Bool[np.ndarray, "draws points"]:
    """Which points are, with confidence, at most epsilon below the best one of each draw; NaN is a run not there."""
    best = _highest(point_means(values))
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
    choices: Sequence[Choice], values: Float[np.ndarray, "points seeds"], epsilon: float
) -> tuple[Choice, Choice] | None:
    """95% percentiles of the rule's point over bootstrap samples of the seeds."""
    size = values.shape[1]
    if size < 2:
        return None
    drawn = numpy_generator("seeds of an advice").integers(size, size=(DRAWS, size))
    close = close_to_best(values[:, drawn].transpose(1, 0, 2), epsilon)
    chosen = close.shape[1] - 1 - close[:, ::-1].argmax(axis=1)
    low, high = np.quantile(chosen, [0.025, 0.975], method="inverted_cdf")
    return choices[int(low)], choices[int(high)]


def _sentence(advice: Advice) -> str:
    is_budget, is_best = advice.choice.budget is not None, advice.choice == advice.best
    ask, what, unit = f"Ask for {advice.choice}", "budget" if is_budget else "point", " nats" * is_budget
    if advice.interval is None:
        return f"{ask}, the {what} with the highest gold. One seed says nothing of other seeds: run more."
    low, high = (str(end).removesuffix(unit) for end in advice.interval)
    if is_best and advice.choice == advice.rows[-1].choice:
        why = f"gold was highest at the largest {what} tried, and a larger one may be better still"
    elif is_best:
        why = f"gold was highest there, and no larger {what} is sure to lose at most {advice.epsilon:.3g} of it"
    else:
        why = f"the largest {what} sure to lose at most {advice.epsilon:.3g} gold against the best, {advice.best}"
    seeds = f"Over samples of the {advice.num_seeds} seeds the advice is"
    return f"{ask}: {why}. {seeds} {f'between {low} and {high}' if low != high else low}{unit}."


def _reservations(
    values: Float[np.ndarray, "points seeds"], best: PointGold, start: float | None, is_given: bool, short: float | None
) -> str:
    """What a reader must know before they follow the advice."""
    text = ""
    if start is not None and best.gold.mean is not None and best.gold.mean <= start:
        text += (
            f" Nothing tried brought more gold than the initial policy has, {start:.3g}: it may be best to spend none."
        )
    if start is None and not is_given:
        text += " Gold of the initial policy is not known, so no share of a gain may be given up."
    if missing := int(np.isnan(values).sum()):
        text += (
            f" {missing} of {values.size} runs have no gold at their end; they are compared on seeds that both have."
        )
    if short is not None:
        text += (
            f" None of its runs came to this budget: they ended at {short:.2g} nats, and what more brings is not known."
        )
    return text
