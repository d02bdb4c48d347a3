"""The reward less what its length alone is worth."""

from functools import lru_cache
from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field

from framework.component import Component
from framework.length_curve import FRACTION, LengthCurve
from framework.tensor import Tensor
from framework.types import ReferenceScores


class LengthCalibration(Component):
    """`r - c(length)`, c fitted by LOWESS to the reference responses, and centred (Huang et al., arXiv 2409.17407)."""

    kind: Literal["length_calibration"] = "length_calibration"
    fraction: float = Field(default=FRACTION, gt=0, le=1)
    """Ratio: the share of the reference responses that each local line is fitted to; more is smoother."""

    needs_answers: ClassVar[int] = 0

    def __call__(
        self,
        reward: Float[Tensor, "B"],
        lengths: Float[Tensor, "B"],
        answers: Float[Tensor, "B M"] | None,
        reference: ReferenceScores,
    ) -> Float[Tensor, "B"]:
        """Each reward less the curve at its response's length (characters), in the units it came in."""
        return reward - _curve(reference, self.fraction)(lengths)[0].to(reward.dtype)


@lru_cache(maxsize=8)
def _curve(reference: ReferenceScores, fraction: float) -> LengthCurve:
    """The curve of one reference, fitted once."""
    return LengthCurve.fit(reference.lengths, reference.scores, fraction)
