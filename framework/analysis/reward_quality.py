"""How good a fitted reward model is on pairs it has not seen, and where its heads part ways.

Every function takes raw scores (before calibration) where it speaks of probabilities, because
sigmoid(raw difference) is the probability that Bradley-Terry fitted. The *mean reward* is the mean
over heads. Nothing here returns NaN: a figure that does not exist is None.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

BINS = 10
"""Of the reliability table and so of the ECE; fewer where there are fewer pairs."""


@dataclass(frozen=True)
class Bin:
    """Pairs that the model is about equally sure of."""

    predicted: float
    """Mean probability that the model gives to the response it prefers, 0.5 to 1."""
    observed: float
    """Share of pairs whose label prefers that response too."""
    count: int


def held_out_quality(
    chosen: Float[np.ndarray, "K N"],
    rejected: Float[np.ndarray, "K N"],
    target: Float[np.ndarray, "N"],
    flipped: Bool[np.ndarray, "N"] | None,
) -> dict[str, Any]:
    """Accuracies, calibration error, Brier score, negative log-likelihood (nats) and the reliability table.

    `accuracy_*` is the mean over heads of each head's accuracy, `mean_accuracy_*` that of the mean reward; a
    tie counts one half, and a soft label counts as the share of its draws that agree. Accuracy on gold
    undoes the flips. The other figures are of the mean reward against the labels.

    Args:
        target: probability that `chosen` is the better one, by the label.
        flipped: whether gold prefers `rejected`; None where gold is not known, and then so is accuracy on it.
    """
    assert chosen.shape[1] > 0, "held-out pairs are needed"
    lead = chosen - rejected
    mean_lead = lead.mean(axis=0)
    gold = None if flipped is None else np.where(flipped, 0.0, 1.0)
    probability, bins = _sigmoid(mean_lead), reliability(chosen, rejected, target)
    return {
        "accuracy_on_labels": float(_agreement(lead, target).mean()),
        "accuracy_on_gold": None if gold is None else float(_agreement(lead, gold).mean()),
        "mean_accuracy_on_labels": float(_agreement(mean_lead, target).mean()),
        "mean_accuracy_on_gold": None if gold is None else float(_agreement(mean_lead, gold).mean()),
        "ece": expected_calibration_error(bins),
        "brier": float(np.square(probability - target).mean()),
        "nll": float(
            (target * np.logaddexp(0, -mean_lead) + (1 - target) * np.logaddexp(0, mean_lead)).mean()
        ),
        "reliability": [asdict(bin) for bin in bins],
    }


def reliability(
    chosen: Float[np.ndarray, "K N"], rejected: Float[np.ndarray, "K N"], target: Float[np.ndarray, "N"]
) -> list[Bin]:
    """Bins of equal mass (their counts differ by at most one), from least to most sure.

    Each pair is read from the side that the mean reward prefers: sigmoid(|lead|), and whether the label
    agrees. Read from the side of `chosen` every outcome would be a win, and there were nothing to compare.
    Equal mass, because a reward model is seldom sure and bins of equal width would mostly be empty.
    """
    lead = (chosen - rejected).mean(axis=0)
    sure, agrees = _sigmoid(np.abs(lead)), _agreement(lead, target)
    order = np.argsort(sure, kind="stable")
    parts = np.array_split(order, min(BINS, len(order)))
    return [
        Bin(float(sure[part].mean()), float(agrees[part].mean()), len(part)) for part in parts if len(part)
    ]


def expected_calibration_error(bins: list[Bin]) -> float:
    """Mean over pairs of their bin's |predicted - observed|."""
    pairs = sum(bin.count for bin in bins)
    return sum(bin.count * abs(bin.predicted - bin.observed) for bin in bins) / pairs


def head_correlation(scores: Float[np.ndarray, "K N"]) -> float | None:
    """Mean Pearson correlation over pairs of heads; None for fewer than two heads that vary.

    A head that scores all texts alike has no correlation and is left out.
    """
    spread = scores.std(axis=1)
    varying = scores[spread > 1e-6 * np.abs(scores).max(axis=1, initial=0.0)]
    if len(varying) < 2:
        return None
    between = np.corrcoef(varying)
    return float(np.clip(between[np.triu_indices(len(varying), k=1)].mean(), -1, 1))


def disagreement(scores: Float[np.ndarray, "K N"]) -> float:
    """Mean over texts of the population standard deviation over heads; 0 for one head. Wants calibrated scores."""
    return float(scores.std(axis=0).mean())


def compare(reference: Float[np.ndarray, "K N"], policy: Float[np.ndarray, "K M"]) -> dict[str, float | None]:
    """How the heads' disagreement and correlation differ between reference and policy samples.

    `disagreement_ratio` is policy / reference: above 1, the policy has gone where the heads know less. None
    where the heads do not disagree on the reference samples. Wants calibrated scores.
    """
    before, after = disagreement(reference), disagreement(policy)
    return {
        "disagreement_reference": before,
        "disagreement_policy": after,
        "disagreement_ratio": after / before if before > 0 else None,
        "head_correlation_reference": head_correlation(reference),
        "head_correlation_policy": head_correlation(policy),
    }


def _agreement(
    lead: Float[np.ndarray, "*heads N"], target: Float[np.ndarray, "N"]
) -> Float[np.ndarray, "*heads N"]:
    """How far each lead agrees with a label: `target` if chosen leads, 1 - target if it trails, 1/2 at a tie."""
    wins = (np.sign(lead) + 1) / 2
    return target * wins + (1 - target) * (1 - wins)


def _sigmoid(lead: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    return np.exp(-np.logaddexp(0.0, -lead))
