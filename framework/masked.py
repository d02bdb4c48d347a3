"""Numbers on real tokens only. Padding never counts, whatever it holds."""

from jaxtyping import Bool, Float

from framework.tensor import Tensor


def keep(x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`x` with zeros where the mask is False, even over NaN or infinity, of which a product would make NaN."""
    return x.where(mask, x.new_zeros(()))


def masked_mean(x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Mean of `x` over the entries where the mask is True; 0 where there are none."""
    return keep(x, mask).sum() / mask.sum().clamp(min=1)


def masked_var(x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], ddof: int) -> Float[Tensor, ""]:
    """Variance of `x` over the entries where the mask is True, 0 where they are too few; `ddof` is 1 for a sample's."""
    # Filled before the square: its gradient at an infinite or NaN entry would be NaN even so.
    deviations = keep(keep(x, mask) - masked_mean(x, mask), mask)
    return deviations.square().sum() / (mask.sum() - ddof).clamp(min=1)


def masked_whiten(
    x: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], ddof: int = 1, eps: float = 1e-8
) -> Float[Tensor, "B T"]:
    """`x` shifted and scaled to mean 0 and variance 1 over the real tokens of the batch; 0 at padding.

    `(x - mean) / sqrt(var + eps)` with the sample variance, as in verl and TRL's PPO. Statistics are weighted by token,
    so long responses count more. One token in all, or none, becomes 0.
    """
    scale = (masked_var(x, mask, ddof) + eps).rsqrt()
    return keep((keep(x, mask) - masked_mean(x, mask)) * scale, mask)


def at_last_token(reward: Float[Tensor, "B"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Each row's reward on its last real token, 0 elsewhere; a row without one loses its reward."""
    real_from_here = mask.flip(1).cumsum(1).flip(1)
    return keep(reward[:, None].expand_as(mask), mask & (real_from_here == 1))


def sequence_sum(x: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B"]:
    """Sum of `x` over the real tokens of each row; 0 for a row without any."""
    return keep(x, mask).sum(dim=1)
