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


def preference_loss(
    chosen: Float[Tensor, "K B"],
    rejected: Float[Tensor, "K B"],
    *,
    target: Float[Tensor, "B"],
    margin: Float[Tensor, "B"],
    weight: Float[Tensor, "B"],
    counts: Float[Tensor, "K B"],
    score_l2: float = 0.0,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """The loss of a reward fit: weighted cross-entropy per head and pair, in nats, plain mean over both.

    With z = chosen - rejected - margin and t the smoothed target, a pair costs

        -t log sigmoid(z) - (1 - t) log sigmoid(-z)

    so sigmoid(z) is the modelled probability that `chosen` is the better one, and the loss is least where the
    lead is `margin + log(t / (1 - t))`. The margin is thus a handicap in the direction that the pair
    states, for the whole pair; for t = 1 it is that of `bradley_terry`. Soft labels with a margin as in
    arXiv 2401.06080.

    The mean divides by K x B and not by the sum of weights, so a batch of light pairs counts for less
    (weighted Bradley-Terry as in arXiv 2507.15507).

    Args:
        target: probability that `chosen` is the better one; 1 is a plain label, 0.5 a tie.
        margin: score units that `chosen` must lead by.
        weight: of the pair, for every head.
        counts: how often each head's resample holds the pair.
        score_l2: coefficient of mean(chosen^2 + rejected^2) / 2, Open-Assistant's term (0.001 there). It
            is no part of the likelihood, so weights and counts leave it alone.
        label_smoothing: eps in t = target (1 - eps) + (1 - target) eps.
    """
    lead = chosen - rejected - margin
    smoothed = target * (1 - label_smoothing) + (1 - target) * label_smoothing
    cross_entropy = smoothed * -F.logsigmoid(lead) + (1 - smoothed) * -F.logsigmoid(-lead)
    loss = (cross_entropy * (weight * counts)).mean()
    if score_l2:
        loss = loss + score_l2 * (chosen.square() + rejected.square()).mean() / 2
    return loss


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
