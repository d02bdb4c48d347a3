"""Every token of the batch counts the same."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from framework.component import Component


class TokenMean(Component):
    """Sum over real tokens / number of real tokens in the batch ("token-mean", "bnpo")."""

    kind: Literal["token_mean"] = "token_mean"

    def weights(self, mask: Bool[Tensor, "B T"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "B T"]:
        """Weight of each token: one over the count of real tokens, 0 at padding.

        A batch without a real token has all weights 0.
        """
        return mask.to(dtype) / mask.sum().clamp(min=1).to(dtype)
