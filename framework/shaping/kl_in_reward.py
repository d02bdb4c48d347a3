"""The KL penalty as a reward on every token."""

from typing import Literal

from jaxtyping import Float

from framework.component import Component
from framework.divergence import k1, sequence_log_ratio
from framework.masked import at_last_token, keep
from framework.tensor import Tensor
from framework.types import Rollout, Shaped


class KlInReward(Component):
    """Pays `-coef * k1` on every token and the reward on the last (Ziegler et al., arXiv 1909.08593).

    Rewarded, k1 gives the policy gradient of KL(policy || reference) exactly, in expectation.
    """

    kind: Literal["kl_in_reward"] = "kl_in_reward"

    def __call__(
        self, rollout: Rollout, reference: Float[Tensor, "B T"], reward: Float[Tensor, "B"], kl_coef: float
    ) -> Shaped:
        """The rollout with `-kl_coef * k1` on each token plus its reward on the last, in reward units."""
        penalty = keep(k1(rollout.logprobs, reference), rollout.mask) * -kl_coef
        kl_nats = sequence_log_ratio(rollout.logprobs, reference, rollout.mask)
        return Shaped(rollout, reference, reward, penalty + at_last_token(reward, rollout.mask), kl_nats, kl_coef)
