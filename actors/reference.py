"""The reference role: the frozen initial policy that KL is measured from."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from actors.group import Group, Pending
from actors.role import Role
from framework.errors import RunError
from framework.models.causal import CausalPolicy
from framework.types import Rollout


class ReferenceWorker:
    """Log-probabilities under the initial policy, a fixed number of rows per forward pass."""

    def __init__(
        self, folder: str, rows: int, temperature: float, precision: Literal["float32", "bfloat16"]
    ) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.policy = CausalPolicy.load(folder, dtype=dtype).to(self.device).eval().requires_grad_(False)
        self.rows, self.temperature = rows, temperature

    @torch.inference_mode()
    def logprobs(self, rollout: Rollout) -> Float[Tensor, "B T"]:
        """Log-probability of each response token, in nats; 0 at padding."""
        parts = [
            self.policy.logprobs_and_values(rollout.rows(i, i + self.rows).to(self.device), self.temperature)[
                0
            ]
            for i in range(0, len(rollout), self.rows)
        ]
        out = torch.cat(parts).cpu()
        if not bool(torch.isfinite(out).all()):
            raise RunError(f"reference: a log-probability is not finite at step {rollout.step}")
        return out

    @torch.inference_mode()
    def full_logprobs(self, rollout: Rollout) -> Float[Tensor, "B T V"]:
        """Log-probability of every token at every position: for a few rows only."""
        return self.policy.full_logprobs(rollout.to(self.device), self.temperature).cpu()


class ReferenceRole(Role):
    """What the driver knows of the reference."""

    def __init__(self, group: Group, rows: int) -> None:
        super().__init__(group)
        self.rows = rows

    def logprobs(self, rollout: Rollout) -> Pending[Float[Tensor, "B T"]]:
        return self.track(
            "reference", self.group.scatter("logprobs", rollout, unit=self.rows, join=torch.cat)
        )

    def full_logprobs(self, rollout: Rollout) -> Pending[Float[Tensor, "B T V"]]:
        return self.track("exact_kl", self.group.call("full_logprobs", rollout))
