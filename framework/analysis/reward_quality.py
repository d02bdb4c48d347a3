"""How good a fitted reward model is on pairs it has not seen, and where its heads part ways.

Where it speaks of probabilities it takes raw scores (before calibration): sigmoid(raw difference) is the probability
that Bradley-Terry fitted. The *mean reward* is the mean over heads. A figure that does not exist is None.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

BINS = 10
"""Of the reliability table and so of the ECE; fewer where there are fewer pairs."""


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
    bins = reliability(chosen, rejected, target)
    return {
        "accuracy_on_labels": float(_agreement(lead, target).mean()),
        "accuracy_on_gold": None if gold is None else float(_agreement(lead, gold).mean()),
        "mean_accuracy_on_labels": float(_agreement(mean_lead, target).mean()),
        "mean_accuracy_on_gold": None if gold is None else float(_agreement(mean_lead, gold).mean()),
        "ece": sum(bin["count"] * abs(bin["predicted"] - bin["observed"]) for bin in bins) / len(target),
        "brier": float(np.square(_sigmoid(mean_lead) - target).mean()),
        "nll": float((target * np.logaddexp(0, -mean_lead) + (1 - target) * np.logaddexp(0, mean_lead)).mean()),
        "reliability": bins,
    }


def reliability(
    chosen: Float[np.ndarray, "K N"], rejected: Float[np.ndarray, "K N"], target: Float[np.ndarray, "N"]
) -> list[dict[str, Any]]:
    """Bins of equal mass (their counts differ by at most one), from least to most sure.

    `predicted` is the mean probability, 0.5 to 1, that the model gives to the response it prefers, `observed` the share
    of the `count` pairs whose label prefers it too. Equal mass, because a reward model is seldom sure and bins of equal
    width would mostly be empty.
    """
    lead = (chosen - rejected).mean(axis=0)
    sure, agrees = _sigmoid(np.abs(lead)), _agreement(lead, target)
    order = np.argsort(sure, kind="stable")
    return [
        {"predicted": float(sure[part].mean()), "observed": float(agrees[part].mean()), "count": len(part)}
        for part in np.array_split(order, min(BINS, len(order)))
    ]


def head_correlation(scores: Float[np.ndarray, "K N"]) -> float | None:
    """Mean Pearson correlation over pairs of heads that vary; None for fewer than two of them."""
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
    """How the heads' disagreement and correlation differ between reference and policy samples, by calibrated scores.

    `disagreement_ratio` is policy / reference, None where the heads do not disagree on the reference samples.
    """
    before, after = disagreement(reference), disagreement(policy)
    return {
        "disagreement_reference": before,
        "disagreement_policy": after,
        "disagreement_ratio": after / before if before > 0 else None,
        "head_correlation_reference": head_correlation(reference),
        "head_correlation_policy": head_correlation(policy),
    }


def _agreement(lead: Float[np.ndarray, "*heads N"], target: Float[np.ndarray, "N"]) -> Float[np.ndarray, "*heads N"]:
    """How far each lead agrees with a label: `target` if chosen leads, 1 - target if it trails, 1/2 at a tie."""
    wins = (np.sign(lead) + 1) / 2
    return target * wins + (1 - target) * (1 - wins)


def _sigmoid(lead: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    return np.exp(-np.logaddexp(0.0, -lead))
