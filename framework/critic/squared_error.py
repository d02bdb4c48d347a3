"""Regression of values on returns."""

from typing import Literal

from jaxtyping import Bool, Float
from pydantic import Field

from framework.component import Component
from framework.masked import keep
from framework.tensor import Tensor


class SquaredError(Component):
    """Half the squared error of each value, clipped as PPO clips it (the factor one half as in verl)."""

    kind: Literal["squared_error"] = "squared_error"
    coef: float = Field(default=0.1, ge=0)
    """Weight of the critic's loss beside the policy's."""
    clip: float | None = Field(default=0.2, gt=0)
    """Range around the value that was rolled out: leaving it pays nothing more. None leaves the loss unclipped."""

    def __call__(
        self,
        values: Float[Tensor, "B T"],
        old_values: Float[Tensor, "B T"],
        returns: Float[Tensor, "B T"],
        mask: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B T"]:
        """Loss of each token, in squared reward units, before `coef`; 0 at padding.

        With `clip`, the larger of the value's error and that of the value held within `clip` of the old one.
        """
        # Equal zeros at padding: no error there, and no gradient from whatever stood in their place.
        values, old_values, returns = (keep(x, mask) for x in (values, old_values, returns))
        error = (values - returns).square()
        if self.clip is not None:
            held = values.clamp(old_values - self.clip, old_values + self.clip)
            error = error.maximum((held - returns).square())
        return error / 2
