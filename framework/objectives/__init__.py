"""Online policy objectives: a loss per token, still to be reduced."""

from typing import Annotated

from pydantic import Field

from framework.objectives.ppo_clip import PpoClip
from framework.objectives.reinforce import Reinforce

Objective = Annotated[PpoClip | Reinforce, Field(discriminator="kind")]

__all__ = ["Objective", "PpoClip", "Reinforce"]
