"""The mean of a batch and its error, where rows of one prompt depend on each other."""

import math
from collections import Counter
from dataclasses import dataclass

from jaxtyping import Float, Int

from framework.tensor import Tensor


@dataclass(frozen=True)
class BatchMean:
    """A mean over rows, in their units, and how well it is known."""

    mean: float
    variance: float
    """Of the mean, in squared units; infinite for one prompt, as it is not known."""
    prompts: int

    @property
    def standard_error(self) -> float:
        """In the rows' units; infinite for one prompt."""
        return math.sqrt(self.variance)


def batch_mean(values: Float[Tensor, "B"], group: Int[Tensor, "B"]) -> BatchMean:
    """Mean over rows; its variance counts prompts, not rows, as independent (the cluster-robust one).

    With P prompts, `e_p` the sum of prompt p's deviations from the mean and B rows (one `group` has those of a prompt)
    it is `P / (P - 1) * sum_p e_p^2 / B^2`: with as many rows of each prompt, the sample variance of the prompts' means
    over P, else the usual first-order variance of a ratio.
    """
    _, prompt = group.unique(return_inverse=True)
    rows = values.double()
    mean = rows.mean()
    sums = prompt.bincount(weights=rows - mean)
    prompts = len(sums)
    if prompts < 2:
        return BatchMean(float(mean), math.inf, prompts)
    variance = prompts / (prompts - 1) * float(sums.square().sum()) / len(rows) ** 2
    return BatchMean(float(mean), variance, prompts)


def rows_across_prompts(group: Int[Tensor, "B"], count: int) -> list[int]:
    """`count` rows (or all there are) of as many prompts as can be: each one's first row, then each one's second."""
    seen: Counter[int] = Counter()
    turns = []
    for row, prompt in enumerate(group.tolist()):
        turns.append((seen[prompt], row))
        seen[prompt] += 1
    return [row for _, row in sorted(turns)[:count]]
