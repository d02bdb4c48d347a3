"""The gold role: the withheld signal. Its scores are logged and reach nothing else."""

import torch
from jaxtyping import Float
from torch import Tensor

from actors.group import Done, Pending
from actors.role import Role
from framework.errors import RunError
from framework.gold import Gold
from framework.types import Rollout


class GoldWorker:
    """Gold scores of whole texts."""

    def __init__(self, gold: Gold) -> None:
        self.scorer = gold.build("cuda" if torch.cuda.is_available() else "cpu")

    def score(self, rollout: Rollout) -> Float[Tensor, "B"]:
        """One gold score per response, in the scorer's own unit."""
        values = self.scorer.score(rollout.prompts, rollout.responses).values.cpu()
        bad = (~torch.isfinite(values)).nonzero()
        if len(bad):
            row = int(bad[0])
            raise RunError(f"gold: the score of row {row} is {float(values[row])} at step {rollout.step}")
        return values


class GoldRole(Role):
    """What the driver knows of the gold scorer."""

    def score(self, rollout: Rollout, when: bool = True) -> Pending[Float[Tensor, "B"] | None]:
        """Gold scores, or None at once where no measurement is due: gold may be costly."""
        if not when:
            return Done(None)
        return self.track("gold", self.group.scatter("score", rollout, unit=self.rows, join=torch.cat))
