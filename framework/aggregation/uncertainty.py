"""The mean, less a price for disagreement."""

from typing import Literal

from jaxtyping import Float
from pydantic import Field

from framework.component import Component
from framework.tensor import Tensor


class Uncertainty(Component):
    """Mean minus weighted population variance over heads ("UWO"; Coste et al., arXiv 2310.02743): it divides by K."""

    kind: Literal["uncertainty"] = "uncertainty"
    weight: float = Field(default=0.5, ge=0)
    """1 / score units: reward lost per unit of variance; 0 is exactly the mean."""

    @property
    def convention(self) -> str:
        """One phrase for tables and reports."""
        return f"mean - {self.weight:g} x population variance over heads"

    def __call__(self, scores: Float[Tensor, "K B"]) -> Float[Tensor, "B"]:
        """Reward of each response: `mean_k r_k - weight * mean_k (r_k - mean)^2`."""
        mean = scores.mean(dim=0)
        return mean - self.weight * scores.var(dim=0, correction=0) if self.weight else mean
