"""What the critic is trained on."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from framework.masked import keep


def value_loss(
    values: Float[Tensor, "B T"],
    old_values: Float[Tensor, "B T"],
    returns: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    clip: float | None,
) -> Float[Tensor, "B T"]:
    """Half the squared error of each value, in squared reward units; 0 at padding.

    With `clip`, the larger of it and the error of the value held within `clip` of the one that was rolled
    out, so that a value pays nothing more for leaving that band (PPO's value clipping; the factor one half as
    in verl).
    """
    # Equal zeros at padding: no error there, and no gradient from whatever stood in their place.
    values, old_values, returns = (keep(x, mask) for x in (values, old_values, returns))
    error = (values - returns).square()
    if clip is not None:
        held = values.clamp(old_values - clip, old_values + clip)
        error = torch.maximum(error, (held - returns).square())
    return error / 2
