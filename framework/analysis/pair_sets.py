"""How often a reward model agrees with the labels of a set of pairs, by subset; RewardBench's sections among them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from framework.analysis.over_seeds import wilson
from framework.component import Component
from framework.data.tables import TableSource

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
    ties: int
    """Pairs whose two responses have the same score; each counts one half."""
    accuracy: float
    low: float
    """Ends of the 95% interval, by Wilson."""
    high: float


def accuracy_of(chosen: Float[np.ndarray, "N"], rejected: Float[np.ndarray, "N"]) -> Accuracy:
    """Share of pairs whose chosen response has the higher reward, a tie counting one half."""
    assert len(chosen), "there is nothing to measure on no pairs"
    ties = int((chosen == rejected).sum())
    accuracy = (int((chosen > rejected).sum()) + ties / 2) / len(chosen)
    return Accuracy(len(chosen), ties, accuracy, *wilson(accuracy, len(chosen)))


def rewardbench_sections(accuracies: Mapping[str, Accuracy]) -> dict[str, Any] | None:
    """RewardBench's summary; None where some subset is not one of its own.

    `sections` has the accuracy of each section with pairs, `score` their mean, None where one has no pairs.

    Inside a section subsets weigh by their pairs, but `math-prm` as much as all code subsets together, as in its
    published code. Its score there counts a tie as a loss; ours, like every accuracy here, as one half.
    """
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
