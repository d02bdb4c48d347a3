"""Where on a response its reward stands."""

from jaxtyping import Bool, Float

from framework.masked import keep
from framework.tensor import Tensor


def at_last_token(reward: Float[Tensor, "B"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Each row's reward on its last real token, 0 elsewhere; a row without one loses its reward."""
    real_from_here = mask.flip(1).cumsum(1).flip(1)
    return keep(reward[:, None].expand_as(mask), mask & (real_from_here == 1))
