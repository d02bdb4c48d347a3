"""The plain average of the heads."""

from typing import ClassVar, Literal

from jaxtyping import Float

from framework.component import Component
from framework.tensor import Tensor


class Mean(Component):
    """Mean over heads: lowers their noise, trusts what they agree on."""

    kind: Literal["mean"] = "mean"
    convention: ClassVar[str] = "mean over heads"
    """One phrase for tables and reports."""

    def __call__(self, scores: Float[Tensor, "K B"]) -> Float[Tensor, "B"]:
        """Reward of each response: `(1/K) sum_k r_k`, in units of the scores."""
        return scores.mean(dim=0)
