"""The KL penalty as a term of the loss."""

from typing import Literal

from jaxtyping import Bool, Float

from framework.component import Component
from framework.divergence import k2, k3, sequence_log_ratio
from framework.masked import at_last_token, keep, sequence_sum
from framework.tensor import Tensor
from framework.types import Rollout, Shaped


class KlInLoss(Component):
    """Leaves the reward alone; the update adds `coef * KL estimate` to its loss and differentiates it.

    k1 cannot be chosen: as a loss it would add noise and hold nothing (decision 7). What the others pull towards, on
    samples from the policy being updated (only the first is the penalty that `kl_in_reward` applies):

        k2, sequence   KL(policy || reference)
        k2, token      the same, but no token pays for the divergence that follows it
        k3, either     KL(reference || policy), heavy-tailed; GRPO's choice, per token
    """

    kind: Literal["kl_in_loss"] = "kl_in_loss"
    estimator: Literal["k2", "k3"] = "k2"
    """Estimator whose gradient is used: k2 or k3."""
    level: Literal["sequence", "token"] = "sequence"
    """Whether the estimator sees a response as one event or its tokens one by one."""

    def __call__(
        self, rollout: Rollout, reference: Float[Tensor, "B T"], reward: Float[Tensor, "B"], kl_coef: float
    ) -> Shaped:
        """The rollout with its reward on the last token and nothing else, in reward units."""
        kl_nats = sequence_log_ratio(rollout.logprobs, reference, rollout.mask)
        return Shaped(rollout, reference, reward, at_last_token(reward, rollout.mask), kl_nats, kl_coef)

    def loss(
        self,
        logprobs: Float[Tensor, "B T"],
        reference: Float[Tensor, "B T"],
        mask: Bool[Tensor, "B T"],
        coef: float,
        weights: Float[Tensor, "B T"],
    ) -> Float[Tensor, ""]:
        """The term to add to the policy's loss, in reward units; `weights` are the reduction's.

        A whole response weighs what its tokens weigh on average. With that, k2 per sequence has the very
        gradient of `kl_in_reward` under REINFORCE, whatever the reduction, and a coefficient means the same.
        """
        estimate = {"k2": k2, "k3": k3}[self.estimator]
        if self.level == "token":
            return coef * (estimate(keep(logprobs, mask), keep(reference, mask)) * weights).sum()
        log_ratio = sequence_log_ratio(logprobs, reference, mask)
        row_weights = sequence_sum(weights, mask) / mask.sum(dim=1).clamp(min=1)
        return coef * (estimate(log_ratio, log_ratio.new_zeros(()).expand_as(log_ratio)) * row_weights).sum()
