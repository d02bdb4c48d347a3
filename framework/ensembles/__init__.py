"""Which reward models there are and how their parts are fitted: one recipe per file.

A recipe names its parts (each a fit to the pairs) and puts the fitted modules together. What comes out is
a list of members; `framework.models.reward_model` scores texts with them.
"""

from typing import Annotated

from pydantic import Field

from framework.ensembles.averaged import Averaged
from framework.ensembles.full import Full
from framework.ensembles.lora import Lora
from framework.ensembles.shared_encoder import SharedEncoder
from framework.ensembles.single import Single

Ensemble = Annotated[Single | SharedEncoder | Full | Lora | Averaged, Field(discriminator="kind")]

__all__ = ["Averaged", "Ensemble", "Full", "Lora", "SharedEncoder", "Single"]
