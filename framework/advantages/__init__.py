"""Which token earned what: rewards on tokens -> advantages on tokens."""

from typing import Annotated

from pydantic import Field

from framework.advantages.gae import Gae
from framework.advantages.group_mean import GroupMean
from framework.advantages.leave_one_out import LeaveOneOut

Advantage = Annotated[Gae | LeaveOneOut | GroupMean, Field(discriminator="kind")]

__all__ = ["Advantage", "Gae", "GroupMean", "LeaveOneOut"]
