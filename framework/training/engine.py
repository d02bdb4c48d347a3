"""How the optimiser of a fit or an update is set."""

from typing import Annotated, Literal

from pydantic import Field

from framework.component import Component

Beta = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Component):
    """AdamW with linear warm-up, then a constant or linearly falling learning rate."""

    lr: float = Field(default=1e-3, ge=1e-12)
    """Peak learning rate."""
    warmup_steps: int = Field(default=0, ge=0)
    """Optimiser steps over which the learning rate rises from zero."""
    decay: Literal["constant", "linear"] = "constant"
    """What follows the warm-up; `linear` reaches zero at the last step."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay, per unit of learning rate."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay of the first and second moment."""
    eps: float = Field(default=1e-8, gt=0, le=1)
    """Added to the root of the second moment."""
    max_grad_norm: float = Field(default=1.0, ge=1e-6)
    """L2 norm that a gradient is scaled down to."""

    def lr_at(self, step: int, total_steps: int | None) -> float:
        """Learning rate of optimiser step `step` (from 0) of `total_steps`."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        if self.decay == "constant" or total_steps is None:
            return self.lr
        left = (total_steps - step) / max(1, total_steps - self.warmup_steps)
        return self.lr * max(0.0, left)
