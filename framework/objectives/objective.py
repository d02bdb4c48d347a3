"""What objectives share: what each says of itself, and the policy being updated against the one that sampled."""

from typing import ClassVar

from jaxtyping import Float

from framework.component import Component
from framework.divergence import k1, k3
from framework.masked import keep
from framework.tensor import Tensor
from framework.types import ObjectiveOutput, PolicyBatch

LOG_RATIO_LIMIT = 20.0


class PolicyObjective(Component):
    """Base of the objectives. The update serves what one needs, and contract tests hold it to what it says."""

    needs_logits: ClassVar[bool] = False
    """Reads `batch.logits`; they cost tokens x vocabulary numbers, so set `update.micro_batch`."""
    needs_features: ClassVar[bool] = False
    """Reads `batch.features`, the states that tokens are predicted from."""
    on_policy: ClassVar[bool] = False
    """Right only on rows that the policy being updated sampled itself: one optimiser step per rollout."""
    pure_policy_gradient: ClassVar[bool] = True
    """Advantages are all that moves the policy: where they are 0 there is no gradient, and on its own samples each
    token is pushed the way of its advantage. False where a penalty or a bonus stands beside them."""

    def __call__(self, batch: PolicyBatch) -> ObjectiveOutput:
        """A loss per token, 0 at padding, and figures to log."""
        raise NotImplementedError


def log_ratio(batch: PolicyBatch) -> Float[Tensor, "B T"]:
    """log policy - log sampler of each token, in nats; 0 at padding.

    Held within +-20, where its gradient is 0: a larger ratio would overflow in 16-bit products and drown all else.
    """
    difference = keep(batch.logprobs - batch.old_logprobs, batch.mask)
    return difference.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def ratio_metrics(log_ratio: Float[Tensor, "B T"]) -> dict[str, Float[Tensor, "B T"]]:
    """Figures every objective logs: the ratio and two estimates of KL(sampler || policy), in nats."""
    difference = log_ratio.detach()
    zero = difference.new_zeros(()).expand_as(difference)
    return {
        "ratio": difference.exp(),
        "kl_to_sampler_k1": k1(zero, difference),
        "kl_to_sampler_k3": k3(zero, difference),
    }
