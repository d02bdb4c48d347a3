"""A floor and a ceiling for the reward."""

from typing import ClassVar, Literal, Self

from jaxtyping import Float
from pydantic import model_validator

from framework.component import Component
from framework.tensor import Tensor
from framework.types import ReferenceScores


class Clip(Component):
    """Holds the reward between two bounds: past them nothing more is to be gained."""

    kind: Literal["clip"] = "clip"
    low: float = -3.0
    """Reward units: nothing is worth less."""
    high: float = 3.0
    """Reward units: nothing is worth more."""

    needs_answers: ClassVar[int] = 0

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low={self.low:g} must be below high={self.high:g}")
        return self

    def __call__(
        self,
        reward: Float[Tensor, "B"],
        lengths: Float[Tensor, "B"],
        answers: Float[Tensor, "B M"] | None,
        reference: ReferenceScores,
    ) -> Float[Tensor, "B"]:
        """Each reward, or the bound that it passes, in the units it came in."""
        return reward.clamp(self.low, self.high)
