"""ODIN: a second head per reward head takes up what length explains, and is then dropped.

Source: Chen et al. 2024 (arXiv 2402.07319). During the fit a module has 2K outputs: K quality heads, then
their K length heads. Bradley-Terry sees the sum of the two; the policy later sees quality alone.
"""

from jaxtyping import Float
from pydantic import Field

from framework.component import Component
from framework.tensor import Tensor


class Odin(Component):
    """A length head beside each reward head during the fit, dropped after it."""

    length_weight: float = Field(default=1.0, ge=0)
    """Of |correlation of quality and length| + 1 - (correlation of the length head and length)."""
    orthogonal_weight: float = Field(default=1.0, ge=0)
    """Of |cosine| between the weights of a quality head and its length head."""


def odin_penalty(
    quality: Float[Tensor, "K B"],
    length_scores: Float[Tensor, "K B"],
    lengths: Float[Tensor, "B"],
    quality_weight: Float[Tensor, "K H"],
    length_weight_matrix: Float[Tensor, "K H"],
    settings: Odin,
) -> Float[Tensor, ""]:
    """What ODIN adds to the loss, mean over heads; 0 where every head is as it should be.

        length_weight (|rho(quality, length)| + 1 - rho(length head, length)) + orthogonal_weight |cos(w_Q, w_L)|

    rho is Pearson's over the B responses, chosen and rejected together. The paper's loss has no 1, which
    changes no gradient. Rows of weights are normalised, so that small weights do not pass for orthogonal
    ones; each quality head answers to its own length head only.
    """
    lean = pearson(quality, lengths).abs() + 1 - pearson(length_scores, lengths)
    norms = quality_weight.norm(dim=1) * length_weight_matrix.norm(dim=1)
    cosine = (quality_weight * length_weight_matrix).sum(dim=1) / norms.clamp(min=1e-12)
    return (settings.length_weight * lean + settings.orthogonal_weight * cosine.abs()).mean()


def pearson(scores: Float[Tensor, "K B"], lengths: Float[Tensor, "B"]) -> Float[Tensor, "K"]:
    """Correlation of each row of scores with the lengths; 0, and without gradient, where either is constant."""
    left, right = _unit(scores), _unit(lengths.to(scores.dtype).unsqueeze(0))
    return (left * right).sum(dim=1)


def _unit(rows: Float[Tensor, "K B"]) -> Float[Tensor, "K B"]:
    """Rows less their mean, of unit norm; zero where a row is constant but for rounding."""
    centred = rows - rows.mean(dim=1, keepdim=True)
    energy = centred.square().sum(dim=1, keepdim=True)
    rounding = rows.detach().abs().amax(dim=1, keepdim=True) * 1e-6
    varies = energy.detach() > rows.shape[1] * rounding.square()
    # The root is taken of 1 where a row is constant: the gradient of sqrt(0) is infinite even if masked.
    norm = energy.where(varies, energy.new_ones(())).sqrt()
    return (centred / norm).where(varies, energy.new_zeros(()))
