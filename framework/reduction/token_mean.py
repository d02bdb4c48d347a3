"""Every token of the batch counts the same."""

from typing import TYPE_CHECKING, Literal

from jaxtyping import Bool, Float

from framework.component import Component
from framework.tensor import Tensor

if TYPE_CHECKING:
    import torch


class TokenMean(Component):
    """Sum over real tokens / number of real tokens in the batch ("token-mean", "bnpo")."""

    kind: Literal["token_mean"] = "token_mean"

    def weights(self, mask: Bool[Tensor, "B T"], dtype: "torch.dtype | None" = None) -> Float[Tensor, "B T"]:
        """Weight of each token: one over the count of real tokens, 0 at padding.

        A batch without a real token has all weights 0.
        """
        real = mask.float() if dtype is None else mask.to(dtype)
        return real / mask.sum().clamp(min=1).to(real.dtype)
