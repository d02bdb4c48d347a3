"""How far the policy has moved from a reference, in nats.

The estimators (J. Schulman, "Approximating KL divergence", 2020) take log-probabilities of text that the *policy*
sampled: of one token each, or of one whole sequence each (summed). Masking is the caller's. With
`d = log policy - log reference`, the value of each estimates KL(policy || reference), in nats, but gradients differ:

    estimator   value             differentiated as a loss, per sequence
    k1  d       unbiased          has mean zero: as a loss it does nothing, as a reward it is right
    k2  d^2/2   biased, never <0  the gradient of KL(policy || reference)
    k3          unbiased, >= 0    the gradient of KL(reference || policy)
"""

import math

from jaxtyping import Bool, Float

from framework.masked import sequence_sum
from framework.tensor import Tensor


def k1(logprobs: Float[Tensor, "*shape"], reference: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Estimate `d` of KL(policy || reference), in nats; unbiased, of either sign."""
    return logprobs - reference


def k2(logprobs: Float[Tensor, "*shape"], reference: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Estimate `d^2 / 2` of KL(policy || reference), in nats; biased, never negative.

    Its gradient is right per sequence only: summed over tokens it gives an early token no credit for what follows it.
    """
    return (logprobs - reference).square() / 2


def k3(logprobs: Float[Tensor, "*shape"], reference: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Estimate `exp(-d) - 1 + d` of KL(policy || reference), in nats; unbiased, never negative.

    Not clamped (as in TRL; verl clamps the result at 10): it is heavy-tailed where the reference likes a token much
    better than the policy does, and overflows 32-bit floats below d = -88.
    """
    difference = logprobs - reference
    return (-difference).expm1() + difference


def sequence_log_ratio(
    logprobs: Float[Tensor, "B T"], reference: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B"]:
    """k1 of each whole response, in nats: log policy(y|x) - log reference(y|x); 0 for an empty row."""
    return sequence_sum(logprobs - reference, mask)


def exact_kl(policy: Float[Tensor, "B T V"], reference: Float[Tensor, "B T V"]) -> Float[Tensor, "B T"]:
    """KL(policy || reference) of each next-token distribution, in nats, from full log-probabilities.

    `sum_v p (log p - log q)`; a token that the policy cannot say adds nothing. Summed over the tokens of responses that
    the policy sampled, it estimates the sequence KL with less noise than k1.
    """
    possible = policy > -math.inf
    # Filled before the product: 0 * -inf is NaN, and so would its gradient be.
    log_ratio = policy.where(possible, 0.0) - reference.where(possible, 0.0)
    return (policy.exp() * log_ratio).sum(dim=-1)
