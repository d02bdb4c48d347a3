"""The gold rule of the embedded world `reviews`: distinct worthy adjectives, on topic, in whole clauses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from framework.component import Component
from framework.gold.scorer import GoldScorer, ScoredTexts
from framework.worlds.reviews import judge


class Rule(Component):
    """Judges reviews by the rule their world was made with; it needs no model and no fitting."""

    kind: Literal["rule"] = "rule"

    def build(self, device: str) -> GoldScorer:
        """A scorer ready to judge; the rule is computed on the CPU whatever the device."""
        return RuleScorer()


@dataclass(frozen=True)
class RuleScorer:
    """Applies the rule to prompts and responses as text."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> ScoredTexts:
        """The gold score of each row, in gold units; a rule reads whole texts, so none is cut."""
        values = [judge(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        return ScoredTexts(values=torch.tensor(values, dtype=torch.float32), num_cut=0)
