"""A soft minimum with one dial from the worst head to the mean."""

from typing import Literal

from jaxtyping import Float
from pydantic import Field

from framework.component import Component
from framework.tensor import Tensor


class Entropic(Component):
    """Entropic risk over heads (KL-robust reward, arXiv 2606.09073).

    Temperature to 0 gives the minimum, to infinity the mean; to second order it is `uncertainty` with
    weight 1 / (2 temperature).
    """

    kind: Literal["entropic"] = "entropic"
    temperature: float = Field(default=1.0, gt=0)
    """Score units: how much heads may differ before the lowest one takes over."""

    @property
    def convention(self) -> str:
        """One phrase for tables and reports."""
        return f"entropic soft minimum over heads, temperature {self.temperature:g}"

    def __call__(self, scores: Float[Tensor, "K B"]) -> Float[Tensor, "B"]:
        """Reward of each response: `-tau log((1/K) sum_k exp(-r_k / tau))`, in units of the scores."""
        lowest = scores.amin(dim=0)
        # Measured from the lowest head nothing overflows at small tau, and expm1 / log1p keep the digits
        # that a logarithm of numbers near 1 would lose at large tau.
        excess = ((lowest - scores) / self.temperature).expm1()
        return lowest - self.temperature * excess.mean(dim=0).log1p()
