"""The gold role: the withheld signal. Its scores are logged and reach nothing else."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from actors.group import Done, Pending
from actors.roles import Role
from framework.errors import RunError
from framework.gold import Gold
from framework.types import Rollout


class GoldWorker:
    """Gold scores of whole texts."""

    def __init__(self, gold: Gold, others: Mapping[str, Gold] | None = None) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.scorers = {name: own.build(device) for name, own in {"gold": gold, **(others or {})}.items()}

    def score(self, rollout: Rollout, name: str = "gold") -> Float[Tensor, "B"]:
        """One gold score per response, in the scorer's own unit."""
        values = self.scorers[name].score(rollout.prompts, rollout.responses).values.cpu()
        bad = (~torch.isfinite(values)).nonzero()
        if len(bad):
            row = int(bad[0])
            raise RunError(f"{name}: the score of row {row} is {float(values[row])} at step {rollout.step}")
        return values


class GoldRole(Role):
    """What the driver knows of the gold scorer."""

    def score(self, rollout: Rollout, when: bool = True, name: str = "gold") -> Pending[Float[Tensor, "B"] | None]:
        """Gold scores, or None at once where no measurement is due: gold may be costly."""
        if not when:
            return Done(None)
        return self.track("gold", self.group.scatter("score", rollout, name, unit=self.rows, join=torch.cat))

    def others(self, rollout: Rollout, due: Mapping[str, bool]) -> dict[str, Pending[Float[Tensor, "B"] | None]]:
        """Scores of each of `golds`, or None at once where it is not due."""
        return {name: self.score(rollout, when, f"golds.{name}") for name, when in due.items()}
