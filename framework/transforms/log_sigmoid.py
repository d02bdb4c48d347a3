"""The log-probability of being better than a reference answer."""

from typing import Literal

from jaxtyping import Float
from pydantic import Field

from framework.component import Component
from framework.tensor import Tensor
from framework.types import ReferenceScores


class LogSigmoid(Component):
    """`log sigmoid(r - r_ref)` (Wang et al., arXiv 2402.00742): pays little for what is good already.

    Under Bradley-Terry it is the log-probability of beating the reference. It is below zero and not bounded from below.
    """

    kind: Literal["log_sigmoid"] = "log_sigmoid"
    answers: int = Field(default=1, ge=1)
    """Answers of the reference policy to each prompt; r_ref is the mean of their rewards."""

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
        """`log sigmoid(reward - mean of answers)`, nats."""
        import torch.nn.functional as F

        assert answers is not None and answers.shape[1] == self.answers
        return F.logsigmoid(reward - answers.mean(dim=1))
