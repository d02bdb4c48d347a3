"""Every token counts the same from batch to batch, whatever the lengths drawn."""

from typing import Literal

from jaxtyping import Bool, Float
from pydantic import Field

from framework.component import Component
from framework.tensor import Tensor


class FixedLength(Component):
    """Sum over real tokens / (rows * a fixed length): length itself gets no gradient (Dr. GRPO, arXiv 2503.20783)."""

    kind: Literal["fixed_length"] = "fixed_length"
    max_tokens: int | None = Field(default=None, gt=0)
    """Tokens per response to divide by; null takes the padded length of the batch at hand, which is the
    same from step to step only where batches are padded to one length."""

    def weights(self, mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Weight of each token: 1 / (rows * max_tokens), 0 at padding."""
        rows, padded_length = mask.shape
        return mask.double() / max(rows * (padded_length if self.max_tokens is None else self.max_tokens), 1)
