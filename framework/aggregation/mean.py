"""The plain average of the heads."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from framework.component import Component


class Mean(Component):
    """Mean over heads: lowers their noise, trusts what they agree on."""

    kind: Literal["mean"] = "mean"

    @property
    def convention(self) -> str:
        """One phrase for tables and reports."""
        return "mean over heads"

    def __call__(self, scores: Float[Tensor, "K B"]) -> Float[Tensor, "B"]:
        """Reward of each response: `(1/K) sum_k r_k`, in units of the scores."""
        return scores.mean(dim=0)
