"""The least favourable head decides."""

from typing import ClassVar, Literal

from jaxtyping import Float

from framework.component import Component
from framework.tensor import Tensor


class WorstCase(Component):
    """Minimum over heads ("WCO"; Coste et al., arXiv 2310.02743)."""

    kind: Literal["worst_case"] = "worst_case"
    convention: ClassVar[str] = "minimum over heads"
    """One phrase for tables and reports."""

    def __call__(self, scores: Float[Tensor, "K B"]) -> Float[Tensor, "B"]:
        """Reward of each response: `min_k r_k`, in units of the scores."""
        return scores.amin(dim=0)
