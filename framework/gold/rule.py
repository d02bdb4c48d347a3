"""The gold rule of the embedded world `reviews`: distinct worthy adjectives, on topic, in whole clauses."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from framework.component import Component
from framework.types import GoldScorer, Scores
from framework.worlds.reviews import judge


class Rule(Component):
    """Judges reviews by the rule their world was made with; it needs no model and no fitting."""

    kind: Literal["rule"] = "rule"
    worlds: ClassVar[tuple[str, ...] | None] = ("reviews",)
    """Kinds of the worlds that it can judge, here the one that it is the rule of; None: any."""

    def build(self, device: str) -> GoldScorer:
        """Itself; the rule is computed on the CPU whatever the device."""
        return self

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """The gold score of each row, in gold units; a rule reads whole texts, so none is cut."""
        import torch

        values = [judge(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        return Scores(torch.tensor(values, dtype=torch.float32))
