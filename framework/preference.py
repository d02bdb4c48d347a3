"""The Bradley-Terry model of pairwise preference, K heads at a time."""

from jaxtyping import Float

from framework.tensor import Tensor


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

    so sigmoid(z) is the modelled probability that `chosen` is the better one, and the loss is least where the lead is
    `margin + log(t / (1 - t))`. For t = 1 that is Bradley and Terry (1952) with the margin of Llama 2; for soft labels
    the margin is a handicap in the direction that the pair states, as in arXiv 2401.06080. The mean divides by K x B
    and not by the sum of weights, so a batch of light pairs counts for less (as in arXiv 2507.15507).

    Args:
        target: probability that `chosen` is the better one; 1 is a plain label, 0.5 a tie.
        margin: score units that `chosen` must lead by.
        weight: of the pair, for every head.
        counts: how often each head's resample holds the pair.
        score_l2: coefficient of mean(chosen^2 + rejected^2) / 2, Open-Assistant's term, without weights and counts.
        label_smoothing: eps in t = target (1 - eps) + (1 - target) eps.
    """
    import torch.nn.functional as F

    lead = chosen - rejected - margin
    smoothed = target * (1 - label_smoothing) + (1 - target) * label_smoothing
    cross_entropy = smoothed * -F.logsigmoid(lead) + (1 - smoothed) * -F.logsigmoid(-lead)
    loss = (cross_entropy * (weight * counts)).mean()
    if score_l2:
        loss = loss + score_l2 * (chosen.square() + rejected.square()).mean() / 2
    return loss
