"""Each response against the others to the same prompt."""

from typing import ClassVar, Literal

from framework.advantages.groups import credit_rows, group_sums, sequence_scores
from framework.component import Component
from framework.types import Credited, Shaped


class LeaveOneOut(Component):
    """Score minus the mean score of the other responses to the prompt (RLOO, arXiv 2402.14740).

    The baseline does not depend on the row itself, so the gradient stays unbiased.
    """

    kind: Literal["leave_one_out"] = "leave_one_out"
    needs_critic: ClassVar[bool] = False
    compares_samples: ClassVar[bool] = True

    def __call__(self, shaped: Shaped) -> Credited:
        """`A_i = R_i - mean_{j != i} R_j` on every token of row i, in reward units."""
        scores = sequence_scores(shaped)
        sums, counts = group_sums(scores, shaped.rollout.group, self.kind)
        return credit_rows(shaped, scores - (sums - scores) / (counts - 1))
