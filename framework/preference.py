"""The Bradley-Terry model of pairwise preference, one score or K heads at a time."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def bradley_terry(
    chosen: Float[Tensor, "*batch"],
    rejected: Float[Tensor, "*batch"],
    margin: Float[Tensor, "*#batch"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Negative log-likelihood, in nats, that each chosen response wins.

    `-log sigmoid(chosen - rejected - margin)` (Bradley and Terry, 1952; the margin as in Llama 2). Takes
    `[B]`, or `[K B]` for K heads judged apart; averaging is the caller's. A constant added to all of a
    head's scores changes nothing, so heads need a common centre before they are compared.
    """
    difference = chosen - rejected
    if margin is not None:
        difference = difference - margin
    return -F.logsigmoid(difference)


def centring(chosen: Float[Tensor, "*batch"], rejected: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Squared sum `(chosen + rejected)^2` of each pair, to be averaged and added with a small coefficient.

    It pulls each pair's midpoint to zero and so fixes the constant that Bradley-Terry leaves free
    (Eisenstein et al., 2023, arXiv 2312.09244). The sum is squared, not each score: the gap is left alone.
    """
    return (chosen + rejected).square()


def pair_accuracy(
    chosen: Float[Tensor, "*heads B"], rejected: Float[Tensor, "*heads B"]
) -> Float[Tensor, "*heads"]:
    """Share of pairs that each head orders as the label does; a tie counts one half."""
    wins = (chosen > rejected).to(chosen.dtype)
    ties = (chosen == rejected).to(chosen.dtype)
    return (wins + ties / 2).mean(dim=-1)
