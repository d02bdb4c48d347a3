"""Where the KL penalty goes: into the reward, or into the loss."""

from typing import Annotated

from pydantic import Field

from framework.shaping.kl_in_loss import KlInLoss
from framework.shaping.kl_in_reward import KlInReward

Shaping = Annotated[KlInReward | KlInLoss, Field(discriminator="kind")]

__all__ = ["KlInLoss", "KlInReward", "Shaping"]
