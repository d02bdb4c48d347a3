"""K heads' scores -> the one reward that the policy is trained on.

Scores must be centred (and scaled) per head before they come here: Bradley-Terry leaves each head a free
constant, and a minimum or a variance over uncentred heads means nothing.
"""

from typing import Annotated

from pydantic import Field

from framework.aggregation.entropic import Entropic
from framework.aggregation.mean import Mean
from framework.aggregation.uncertainty import Uncertainty
from framework.aggregation.worst_case import WorstCase

Aggregation = Annotated[Mean | WorstCase | Uncertainty | Entropic, Field(discriminator="kind")]

__all__ = ["Aggregation", "Entropic", "Mean", "Uncertainty", "WorstCase"]
