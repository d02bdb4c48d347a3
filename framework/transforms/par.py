"""The probability of being better than a reference answer."""

from typing import Literal

from jaxtyping import Float
from pydantic import Field

from framework.component import Component
from framework.tensor import Tensor
from framework.types import ReferenceScores


class Par(Component):
    """Preference as reward: the mean of `sigmoid(r - r_ref)` over reference answers (arXiv 2502.18770).

    Under Bradley-Terry it is the probability of beating an answer of the reference policy. It lies between
    0 and 1, is steepest where a response equals its reference, and flattens where reward is hacked.
    """

    kind: Literal["par"] = "par"
    answers: int = Field(default=1, ge=1)
    """Answers of the reference policy to each prompt; the paper finds one to be enough."""

    @property
    def needs_answers(self) -> int:
        return self.answers

    def __call__(
        self,
        reward: Float[Tensor, "B"],
        lengths: Float[Tensor, "B"],
        answers: Float[Tensor, "B M"] | None,
        reference: ReferenceScores,
    ) -> Float[Tensor, "B"]:
        """`mean over answers of sigmoid(reward - answer)`, between 0 and 1."""
        assert answers is not None and answers.shape[1] == self.answers
        return (reward.unsqueeze(1) - answers).sigmoid().mean(dim=1)
