"""The plain policy gradient."""

from typing import ClassVar, Literal

from framework.masked import keep
from framework.objectives.objective import PolicyObjective, log_ratio, ratio_metrics
from framework.types import ObjectiveOutput, PolicyBatch


class Reinforce(PolicyObjective):
    """Advantage-weighted log-likelihood (Williams, 1992).

    It has no ratio to correct for rows that another policy sampled: one pass, one update per rollout.
    """

    kind: Literal["reinforce"] = "reinforce"
    on_policy: ClassVar[bool] = True

    def __call__(self, batch: PolicyBatch) -> ObjectiveOutput:
        """Loss of each token: `-A log policy(token)`; 0 at padding."""
        loss = -keep(batch.advantages, batch.mask) * keep(batch.logprobs, batch.mask)
        return ObjectiveOutput(token_loss=loss, token_metrics=ratio_metrics(log_ratio(batch)))
