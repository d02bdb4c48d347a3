"""How the KL coefficient moves from step to step. Every controller is pure; its state goes into every checkpoint."""

from typing import Annotated

from pydantic import Field

from framework.kl.adaptive import Adaptive
from framework.kl.budget import Budget
from framework.kl.controller import KlState
from framework.kl.fixed import Fixed
from framework.kl.stop import Stop

KlController = Annotated[Fixed | Adaptive | Budget | Stop, Field(discriminator="kind")]

__all__ = ["Adaptive", "Budget", "Fixed", "KlController", "KlState", "Stop"]
