"""Each response against its whole group."""

from typing import ClassVar, Literal

from pydantic import Field

from framework.advantages.groups import credit_rows, group_sums, sequence_scores
from framework.component import Component
from framework.types import Credited, Shaped


class GroupMean(Component):
    """Score minus the mean score of the prompt's responses (GRPO, arXiv 2402.03300; Dr. GRPO, arXiv 2503.20783)."""

    kind: Literal["group_mean"] = "group_mean"
    needs_critic: ClassVar[bool] = False
    compares_samples: ClassVar[bool] = True
    divide_by_std: bool = True
    """Divide by the group's standard deviation (GRPO). It makes prompts on which responses hardly differ
    count as much as any other; false is Dr. GRPO."""
    std_eps: float = Field(default=1e-6, gt=0, le=1)
    """Reward units added to the standard deviation. 1e-6 as in verl; TRL uses 1e-4."""

    def __call__(self, shaped: Shaped) -> Credited:
        """`A_i = (R_i - mean) / (std + std_eps)` on every token of row i.

        The standard deviation divides by group size - 1. A group of equal scores gets 0.
        """
        scores = sequence_scores(shaped)
        sums, counts = group_sums(scores, shaped.rollout.group, self.kind)
        centred = scores - sums / counts
        if self.divide_by_std:
            squares, _ = group_sums(centred.square(), shaped.rollout.group, self.kind)
            centred = centred / ((squares / (counts - 1)).sqrt() + self.std_eps)
        return credit_rows(shaped, centred)
