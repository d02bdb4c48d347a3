"""How far the policy being updated has moved from the one that sampled."""

from jaxtyping import Float
from torch import Tensor

from framework.divergence import k1, k3
from framework.masked import keep
from framework.types import PolicyBatch

LOG_RATIO_LIMIT = 20.0


def log_ratio(batch: PolicyBatch) -> Float[Tensor, "B T"]:
    """log policy - log sampler of each token, in nats, held within +-20; 0 at padding.

    Beyond the limit the ratio would overflow a product in 16-bit floats and drown every other token;
    there the gradient is 0.
    """
    difference = keep(batch.logprobs - batch.old_logprobs, batch.mask)
    return difference.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def drift_metrics(log_ratio: Float[Tensor, "B T"]) -> dict[str, Float[Tensor, "B T"]]:
    """Figures every objective logs: the ratio and two estimates of KL(sampler || policy), in nats."""
    difference = log_ratio.detach()
    zero = difference.new_zeros(()).expand_as(difference)
    return {
        "ratio": difference.exp(),
        "kl_to_sampler_k1": k1(zero, difference),
        "kl_to_sampler_k3": k3(zero, difference),
    }
