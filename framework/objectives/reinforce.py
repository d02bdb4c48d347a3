"""The plain policy gradient."""

from typing import Literal

from framework.component import Component
from framework.masked import keep
from framework.objectives.drift import drift_metrics, log_ratio
from framework.types import ObjectiveOutput, PolicyBatch


class Reinforce(Component):
    """Advantage-weighted log-likelihood (Williams, 1992).

    Right only on rows that the policy being updated sampled itself: one pass, one update per rollout. It
    has no ratio to correct anything else.
    """

    kind: Literal["reinforce"] = "reinforce"

    def __call__(self, batch: PolicyBatch) -> ObjectiveOutput:
        """Loss of each token: `-A log policy(token)`; 0 at padding."""
        logprobs = keep(batch.logprobs, batch.mask)
        return ObjectiveOutput(
            token_loss=-keep(batch.advantages, batch.mask) * logprobs,
            token_metrics=drift_metrics(log_ratio(batch)),
        )
