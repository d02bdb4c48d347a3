"""How good a reward model is on pairs: after its fit on held-out ones, and on a set of pairs by subset, RewardBench's too.
Where it speaks of probabilities it takes raw scores (before calibration): sigmoid(raw difference) is the probability
that Bradley-Terry fitted. The *mean reward* is the mean over heads. A figure that does not exist is None."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float

from framework.analysis.over_seeds import wilson
from framework.component import Component
from framework.data.tables import TableSource

BINS = 10  # of the reliability table and so of the ECE; fewer where there are fewer pairs
SECTIONS: Final = {
    "Chat": ("alpacaeval-easy", "alpacaeval-length", "alpacaeval-hard", "mt-bench-easy", "mt-bench-med"),
    "Chat Hard": (
        "mt-bench-hard", "llmbar-natural", "llmbar-adver-neighbor", "llmbar-adver-GPTInst",
        "llmbar-adver-GPTOut", "llmbar-adver-manual",
    ),
    "Safety": (
        "refusals-dangerous", "refusals-offensive", "xstest-should-refuse", "xstest-should-respond", "donotanswer",
    ),
    "Reasoning": ("math-prm", "hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust"),
}  # fmt: skip
"""RewardBench's subsets by section (arXiv 2403.13787)."""


class ScorePairs(Component):
    """Accuracy of a reward model on a set of pairs, as a whole and by subset."""

    model: str | None = None
    """Folder of a reward model of ours, or folder or hub id of one published as sequence classification. None:
    the one that this configuration fits."""
    source: TableSource
    """The pairs: `prompt`, `chosen`, `rejected`, as strings or conversations; RewardBench's columns as they are."""
    subset_column: str = "subset"
    """Their column that names a pair's subset. A table without `subset` is one set."""


@dataclass(frozen=True)
class Accuracy:
    """Agreement with the labels of some pairs."""

    pairs: int
    ties: int  # pairs whose two responses have the same score; each counts one half
    accuracy: float
    low: float  # ends of the 95% interval, by Wilson
    high: float


def accuracy_of(chosen: Float[np.ndarray, "N"], rejected: Float[np.ndarray, "N"]) -> Accuracy:
    """Share of pairs whose chosen response has the higher reward, a tie counting one half."""
    assert len(chosen), "there is nothing to measure on no pairs"
    ties = int((chosen == rejected).sum())
    accuracy = (int((chosen > rejected).sum()) + ties / 2) / len(chosen)
    return Accuracy(len(chosen), ties, accuracy, *wilson(accuracy, len(chosen)))


def rewardbench_sections(accuracies: Mapping[str, Accuracy]) -> dict[str, Any] | None:
    """RewardBench's summary: `sections` has the accuracy of each section with pairs, `score` their mean, None where one
    has no pairs. None where some subset is not one of its own. Inside a section subsets weigh by their pairs, but
    `math-prm` as much as all code subsets together, as in its published code. Its score there counts a tie as a loss;
    ours, like every accuracy here, as one half."""
    if not set(accuracies) <= {name for names in SECTIONS.values() for name in names}:
        return None
    sections = {}
    for section, names in SECTIONS.items():
        weights = {name: accuracies[name].pairs for name in names if name in accuracies}
        code = sum(pairs for name, pairs in weights.items() if name.startswith("hep-"))
        if "math-prm" in weights and code:
            weights["math-prm"] = code
        if weights:
            total = sum(weight * accuracies[name].accuracy for name, weight in weights.items())
            sections[section] = total / sum(weights.values())
    score = sum(sections.values()) / len(sections) if len(sections) == len(SECTIONS) else None
    return {"sections": sections, "score": score}


def held_out_quality(
    chosen: Float[np.ndarray, "K N"],
    rejected: Float[np.ndarray, "K N"],
    target: Float[np.ndarray, "N"],
    flipped: Bool[np.ndarray, "N"] | None,
) -> dict[str, Any]:
    """Accuracies, calibration error, Brier score, negative log-likelihood (nats) and the reliability table.

    `accuracy_*` is the mean over heads of each head's accuracy, `mean_accuracy_*` that of the mean reward; a
    tie counts one half, and a soft label counts as the share of its draws that agree. Accuracy on gold
    undoes the flips. The other figures are of the mean reward against the labels. `target` is the probability that
    `chosen` is the better one, by the label; `flipped` says whether gold prefers `rejected`, None where gold is not
    known, and then so is accuracy on it.
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
    """Bins of equal mass (their counts differ by at most one), from least to most sure: a reward model is seldom sure, and
    bins of equal width would mostly be empty. `predicted` is the mean probability, 0.5 to 1, that the model gives to the
    response it prefers, `observed` the share of the `count` pairs whose label prefers it too."""
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
    """How the heads' disagreement and correlation differ between reference and policy samples, by calibrated scores; the
    ratio is policy / reference, None where the heads do not disagree on the reference samples."""
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
