"""Generalised advantage estimation, with a critic."""

from typing import ClassVar, Literal

from jaxtyping import Bool, Float
from pydantic import Field

from framework.component import Component
from framework.errors import UserError
from framework.masked import keep, masked_whiten
from framework.tensor import Tensor
from framework.types import Credited, Shaped


class Gae(Component):
    """Exponentially weighted sum of temporal-difference errors (arXiv 1506.02438)."""

    kind: Literal["gae"] = "gae"
    needs_critic: ClassVar[bool] = True
    """Whether the rollout must carry values."""
    compares_samples: ClassVar[bool] = False
    """Whether it needs two or more responses to each prompt."""
    gamma: float = Field(default=1.0, ge=0, le=1)
    """Ratio: discount per token."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """Ratio: 1 trusts the rewards seen, 0 trusts the critic."""
    whiten: bool = True
    """Shift and scale advantages to mean 0 and variance 1 over the real tokens of the batch."""

    def __call__(self, shaped: Shaped) -> Credited:
        """Advantages, and the returns (advantages before whitening + values) the critic regresses on."""
        rollout = shaped.rollout
        if rollout.values is None:
            mend = "give the policy a value head, or set train.advantage.kind=leave_one_out"
            raise UserError(f"advantage gae needs a critic and the rollout carries no values: {mend}")
        raw = self.estimate(shaped.token_rewards, rollout.values, rollout.mask)
        advantages = masked_whiten(raw, rollout.mask) if self.whiten else raw
        return Credited(shaped, advantages, keep(raw + rollout.values, rollout.mask))

    def estimate(
        self, rewards: Float[Tensor, "B T"], values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """Advantages before whitening, in reward units; 0 at padding.

        `A_t = delta_t + gamma lam A_{t+1}`, `delta_t = r_t + gamma V_{t+1} - V_t`, with V = 0 after the
        last real token: every response ends an episode. Masked tokens inside a response are stepped over.
        """
        import torch

        later_value = later_advantage = values.new_zeros(values.shape[0])
        columns: list[Tensor] = []
        for t in reversed(range(values.shape[1])):
            real = mask[:, t]
            delta = rewards[:, t] + self.gamma * later_value - values[:, t]
            advantage = delta + self.gamma * self.lam * later_advantage
            later_value = torch.where(real, values[:, t], later_value)
            later_advantage = torch.where(real, advantage, later_advantage)
            columns.append(advantage)
        return keep(torch.stack(columns[::-1], dim=1), mask) if columns else torch.zeros_like(values)
