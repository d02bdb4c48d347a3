"""What is withheld: a signal that labels pairs and measures, and never trains a policy."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from framework.component import Component
from framework.gold.classifier import Classifier
from framework.gold.judge import Judge
from framework.gold.ngram import Ngram
from framework.gold.python import Python
from framework.gold.rule import Rule

Gold = Annotated[Rule | Ngram | Classifier | Python | Judge, Field(discriminator="kind")]

Reward = Annotated[Python | Judge, Field(discriminator="kind")]
"""What may also stand in the reward model's place."""


class OtherGold(Component):
    """A gold signal beside `gold`, which is measured and does nothing else; written as `gold` is, with `every` beside."""

    scorer: Gold
    every: int = Field(default=1, ge=1)
    """Steps between measurements; the last step is always measured."""

    @model_validator(mode="before")
    @classmethod
    def _in_one_piece(cls, tree: Any) -> Any:
        if not isinstance(tree, dict) or "scorer" in tree:
            return tree
        own = {name: value for name, value in tree.items() if name != "every"}
        return {name: value for name, value in tree.items() if name == "every"} | {"scorer": own}


__all__ = ["Classifier", "Gold", "Judge", "Ngram", "OtherGold", "Python", "Reward", "Rule"]
