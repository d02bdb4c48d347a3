"""Every response counts the same, however long it is."""

from typing import Literal

from jaxtyping import Bool, Float

from framework.component import Component
from framework.tensor import Tensor


class SequenceMean(Component):
    """Mean over all rows of each row's mean over its tokens (GRPO, arXiv 2402.03300).

    A long wrong answer is punished less per token than a short one (Dr. GRPO, arXiv 2503.20783).
    """

    kind: Literal["sequence_mean"] = "sequence_mean"

    def weights(self, mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Weight of each token: 1 / (rows * length of its row), 0 at padding.

        A row without a real token counts as a row whose loss is 0 (as in TRL; verl leaves it out).
        """
        lengths = mask.sum(dim=1, keepdim=True).clamp(min=1)
        return mask.double() / (lengths * max(mask.shape[0], 1))
