"""Every token of the batch counts the same."""

from typing import Literal

from jaxtyping import Bool, Float

from framework.component import Component
from framework.tensor import Tensor


class TokenMean(Component):
    """Sum over real tokens / number of real tokens in the batch ("token-mean", "bnpo")."""

    kind: Literal["token_mean"] = "token_mean"

    def weights(self, mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Weight of each token: one over the count of real tokens, 0 at padding. Of padding alone all are 0."""
        return mask.double() / mask.sum().clamp(min=1)
