"""One reward -> the reward that the policy is paid: clipped, compared, or freed of its length.

A transform sees rewards after aggregation, in the order of the list. One that `needs_answers` compares with that many
answers of the reference policy to the same prompt. The others apply to those answers and to the reference responses as
well, so that both sides of a comparison that follows are in one unit. After a comparison only a clip makes sense.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from framework.transforms.clip import Clip
from framework.transforms.length_calibration import LengthCalibration
from framework.transforms.log_sigmoid import LogSigmoid
from framework.transforms.par import Par

Transform = Annotated[Clip | LogSigmoid | Par | LengthCalibration, Field(discriminator="kind")]


def in_order(transforms: tuple[Transform, ...]) -> tuple[Transform, ...]:
    """The same transforms; refuses one that would not know the unit of what it is given."""
    compared = ""
    for transform in transforms:
        if compared and transform.kind != "clip":
            raise ValueError(f"{transform.kind} cannot follow {compared}: only clip can")
        compared = transform.kind if transform.needs_answers else compared
    return transforms


Transforms = Annotated[tuple[Transform, ...], AfterValidator(in_order)]

__all__ = ["Clip", "LengthCalibration", "LogSigmoid", "Par", "Transform", "Transforms"]
