"""What is withheld: a signal that labels pairs and measures, and never trains a policy."""

from typing import Annotated

from pydantic import Field

from framework.gold.classifier import Classifier
from framework.gold.judge import Judge
from framework.gold.ngram import Ngram
from framework.gold.python import Python
from framework.gold.rule import Rule

Gold = Annotated[Rule | Ngram | Classifier | Python | Judge, Field(discriminator="kind")]

Reward = Annotated[Python | Judge, Field(discriminator="kind")]
"""What may also stand in the reward model's place."""

__all__ = ["Classifier", "Gold", "Judge", "Ngram", "Python", "Reward", "Rule"]
