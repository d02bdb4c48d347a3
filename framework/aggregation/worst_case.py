"""The least favourable head decides."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from framework.component import Component


class WorstCase(Component):
    """Minimum over heads ("WCO"; Coste et al., arXiv 2310.02743)."""

    kind: Literal["worst_case"] = "worst_case"

    @property
    def convention(self) -> str:
        """One phrase for tables and reports."""
        return "minimum over heads"

    def __call__(self, scores: Float[Tensor, "K B"]) -> Float[Tensor, "B"]:
        """Reward of each response: `min_k r_k`, in units of the scores."""
        return scores.amin(dim=0)
