"""Best-of-n from one pool: what gold says of the response that the proxy likes best, for every n at once.

Instead of drawing subsets, the mean over *all* subsets of n responses is taken in closed form, so one pool serves every
n and every proxy without bias (Gao et al., arXiv 2210.10760; the estimator as in Coste et al., arXiv 2310.02743).
Sizes: P prompts, N responses to each, K heads, `n` values of n.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.numpy import load_file

from framework.aggregation import Aggregation
from framework.analysis.run_folder import read_config
from framework.artifacts import MANIFEST, hash_folder
from framework.errors import RunError, UserError

POOL_LINK = "pool.json"
"""Beside a run's folder: where the `scores` of the best-of-n pool by its reward model are, and the values of n."""


def best_of_n_kl(n: int) -> float:
    """KL from best-of-n to the policy that was sampled: `log n - (n - 1)/n`, in nats per sequence. Exact where no two
    responses tie, and an upper bound where some do (arXiv 2210.10760)."""
    assert n >= 1
    return math.log(n) - (n - 1) / n


def rank_weights(size: int, n: int) -> Float[np.ndarray, "N"]:
    """Share of the subsets of `n` out of `size` whose best is the i-th from below: `C(i-1, n-1) / C(size, n)`."""
    assert 1 <= n <= size, (n, size)
    # From the top, n/size for the best of all, by the ratio of neighbours (i - n)/(i - 1): nothing overflows, and no
    # digits are lost to differences of large logarithms.
    above = np.arange(size, 1, -1)
    ratios = np.maximum(above - n, 0) / (above - 1)
    return (n / size * np.cumprod(np.concatenate([[1.0], ratios])))[::-1]


@dataclass(frozen=True, eq=False)
class Ranking:
    """A pool in ascending order of a score, prompt by prompt, with what ties in it: sorted once, used for every n."""

    order: Int[np.ndarray, "P N"]  # pool positions of each prompt, the least score first
    starts: Int[np.ndarray, "G"]
    """Where each group of equal scores begins in the flattened order. No group reaches over two prompts."""

    @classmethod
    def of(cls, scores: Float[np.ndarray, "P N"]) -> "Ranking":
        """The ranking by these scores; a `RunError` where one is not finite, and so has no rank."""
        bad = np.argwhere(~np.isfinite(scores))
        if len(bad):
            prompt, sample = bad[0]
            raise RunError(
                f"best-of-n: sample {sample} of prompt {prompt} scores {scores[prompt, sample]} "
                f"({len(bad)} scores are not finite): they cannot be ranked; look at the model that gave them"
            )
        order = np.argsort(scores, axis=1)
        ranked = np.take_along_axis(scores, order, axis=1)
        begins = np.ones(scores.shape, dtype=bool)
        begins[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
        return cls(order, np.flatnonzero(begins))

    def curve(self, values: Float[np.ndarray, "P N"], ns: Sequence[int]) -> Float[np.ndarray, "P n"]:
        """Expected value, at each n, of the best of n random responses; among equals each is taken as often."""
        ranked = np.take_along_axis(np.asarray(values, dtype=np.float64), self.order, axis=1)
        weights = np.stack([rank_weights(self.order.shape[1], n) for n in ns], axis=1)
        if len(self.starts) < ranked.size:
            sizes = np.diff(self.starts, append=ranked.size)
            means = np.add.reduceat(ranked.ravel(), self.starts) / sizes
            ranked = np.repeat(means, sizes).reshape(ranked.shape)
        return ranked @ weights

    def selection(self, n: int) -> Float[np.ndarray, "P N"]:
        """Probability of each response, in pool order, to be the best of `n` random ones; sums to 1 per prompt."""
        size = self.order.shape[1]
        first, sizes = self.starts % size, np.diff(self.starts, append=self.order.size)
        below = np.concatenate([[0.0], np.cumsum(rank_weights(size, n))])
        shares = np.repeat((below[first + sizes] - below[first]) / sizes, sizes).reshape(self.order.shape)
        placed = np.empty_like(shares)
        np.put_along_axis(placed, self.order, shares, axis=1)
        return placed

    def win_rate(self, first: Float[np.ndarray, "P N"], second: Float[np.ndarray, "P N"]) -> Float[np.ndarray, "P"]:
        """Chance that a response drawn by `first` ranks above one drawn by `second`, a tie counting one half; both are
        the probability of each response, in pool order."""
        num_prompts, size = self.order.shape
        mine, theirs = (np.take_along_axis(p, self.order, axis=1) for p in (first, second))
        below = (np.cumsum(theirs, axis=1) - theirs).ravel()[self.starts]
        level = np.add.reduceat(theirs.ravel(), self.starts)
        won = np.add.reduceat(mine.ravel(), self.starts) * (below + level / 2)
        return np.bincount(self.starts // size, weights=won, minlength=num_prompts)


def best_of_n_win_rate(
    proxy: Float[np.ndarray, "P N"], rival: Float[np.ndarray, "P N"], gold: Float[np.ndarray, "P N"], ns: Sequence[int]
) -> Float[np.ndarray, "P n"]:
    """Chance that the best of n by `proxy` has more gold than the best of n by `rival`; a tie in gold is one half. Each
    picks from n random responses of its own out of the one pool, so they can pick the same one, which is a tie."""
    ours, theirs, by_gold = Ranking.of(proxy), Ranking.of(rival), Ranking.of(gold)
    return np.stack([by_gold.win_rate(ours.selection(n), theirs.selection(n)) for n in ns], axis=1)


def mean_and_error(values: Float[np.ndarray, "P"]) -> tuple[float, float | None]:
    """Mean over prompts and its standard error; None for one prompt."""
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    return float(values.mean()), error


def best_of_n_points(
    heads: Float[np.ndarray, "K P N"],
    proxies: Mapping[str, Float[np.ndarray, "P N"]],
    gold: Float[np.ndarray, "P N"],
    ns: Sequence[int],
) -> dict[str, list[dict[str, Any]]]:
    """The curve of each proxy as records, one per n, averaged over prompts; standard errors are over prompts.

    Keys: `n`; `kl_nats`; `proxy` and `gold` with `proxy_se` and `gold_se`; `below_peak`, the curve's highest gold less
    this one, with `below_peak_se` of the difference on the same prompts; `gap`, proxy minus gold, each less its mean
    over the pool and in standard deviations of the pool (None where one of them is constant), so 0 at n = 1; with
    several heads `win_rate` and `win_rate_se`, the share of comparisons with one head by itself, averaged over heads,
    that the proxy wins. A `RunError` where a score is not finite.
    """
    gold = gold.astype(np.float64)
    rankings = {name: Ranking.of(proxy) for name, proxy in proxies.items()}
    points = {name: _means(rankings[name], own.astype(np.float64), gold, ns) for name, own in proxies.items()}
    if len(heads) > 1:
        by_gold, singles = Ranking.of(gold), [Ranking.of(head) for head in heads]
        for column, n in enumerate(ns):
            # Linear in the rival's probabilities: the mean over heads can be taken first.
            rival = np.mean([single.selection(n) for single in singles], axis=0)
            for name, ranking in rankings.items():
                mean, error = mean_and_error(by_gold.win_rate(ranking.selection(n), rival))
                points[name][column] |= {"win_rate": mean, "win_rate_se": error}
    return points


def _means(
    ranking: Ranking, proxy: Float[np.ndarray, "P N"], gold: Float[np.ndarray, "P N"], ns: Sequence[int]
) -> list[dict[str, Any]]:
    """What one proxy's records hold without its rivals."""
    proxies, golds = ranking.curve(proxy, ns).T, ranking.curve(gold, ns).T
    peak, has_spread = golds[golds.mean(axis=1).argmax()], min(proxy.std(), gold.std()) >= 1e-12
    points: list[dict[str, Any]] = []
    for n, proxy_at_n, gold_at_n in zip(ns, proxies, golds, strict=True):
        point: dict[str, Any] = {"n": n, "kl_nats": best_of_n_kl(n)}
        point["proxy"], point["proxy_se"] = mean_and_error(proxy_at_n)
        point["gold"], point["gold_se"] = mean_and_error(gold_at_n)
        point["below_peak"], point["below_peak_se"] = mean_and_error(peak - gold_at_n)
        point["gap"] = None
        if has_spread:
            far = (point["proxy"] - proxy.mean()) / proxy.std()
            point["gap"] = float(far - (point["gold"] - gold.mean()) / gold.std())
        points.append(point)
    return points


@dataclass(frozen=True, eq=False)
class Pool:
    """A scored pool as one run's reward sees it; P prompts, N responses to each."""

    proxy: Float[np.ndarray, "P N"]
    gold: Float[np.ndarray, "P N"]
    points: list[dict[str, Any]]


def read_pool(folder: Path) -> Pool | None:
    """The pool that the file beside this run folder names, if there is one; a `UserError` where it cannot be read."""
    link = folder.parent / POOL_LINK
    if not link.is_file():
        return None
    try:
        record = json.loads(link.read_text(encoding="utf-8"))
        scores = link.parent / record["scores"]
        if (scores.parent / MANIFEST).is_file() and hash_folder(scores.parent) != record["sha256"]:
            raise ValueError(f"{scores.parent} was edited or damaged: delete it")
        tensors = load_file(scores)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{link}: its scores cannot be read ({error}); run the same command again") from error
    heads, gold = torch.from_numpy(tensors["heads"]), tensors["gold"].astype(np.float64)
    aggregation = TypeAdapter[Any](Aggregation).validate_python(read_config(folder)["aggregation"])
    proxy = aggregation(heads.flatten(1)).numpy().reshape(gold.shape).astype(np.float64)
    return Pool(proxy, gold, best_of_n_points(proxy[None], {"own": proxy}, gold, record["ns"])["own"])
