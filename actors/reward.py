"""The reward role: the proxy ensemble, served as one component that returns every head's score."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from actors.group import Group, Pending
from actors.role import Role
from framework.errors import RunError
from framework.models.reward_ensemble import RewardEnsemble, encode_texts
from framework.models.tokenizer import load_tokenizer
from framework.types import Rollout


class RewardWorker:
    """K calibrated scores per response, a fixed number of rows per forward pass."""

    def __init__(
        self,
        folder: str,
        rows: int,
        max_tokens: int,
        max_cut_share: float,
        precision: Literal["float32", "bfloat16"],
    ) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = load_tokenizer(folder, needs_end=False)
        self.ensemble = RewardEnsemble.load(folder).to(self.device).eval().requires_grad_(False)
        self.rows, self.max_tokens, self.max_cut_share = rows, max_tokens, max_cut_share
        self.autocast = torch.autocast(self.device, dtype=torch.bfloat16, enabled=precision == "bfloat16")

    @torch.inference_mode()
    def score(self, rollout: Rollout) -> Float[Tensor, "K B"]:
        """Each head's score of each response, in standard deviations on reference responses.

        Raises:
            RunError: a score that is not finite, or too many texts that had to be cut.
        """
        end = self.tokenizer.eos_token_id if self.ensemble.causal else None
        parts, num_cut = [], 0
        for start in range(0, len(rollout), self.rows):
            part = rollout.rows(start, start + self.rows)
            ids, mask, cut = encode_texts(self.tokenizer, part.prompts, part.responses, self.max_tokens, end)
            with self.autocast:
                parts.append(self.ensemble(ids.to(self.device), mask.to(self.device)).cpu())
            num_cut += cut
        if num_cut > self.max_cut_share * len(rollout):
            raise RunError(
                f"reward: {num_cut} of {len(rollout)} texts are longer than fit_reward.max_tokens={self.max_tokens} "
                f"at step {rollout.step}: raise it, or fit_reward.max_cut_share to accept the cut"
            )
        scores = torch.cat(parts, dim=1)
        bad = (~torch.isfinite(scores)).nonzero()
        if len(bad):
            head, row = bad[0].tolist()
            raise RunError(
                f"reward: head {head} gives {float(scores[head, row])} for row {row} at step {rollout.step}"
            )
        return scores


def _join(parts: Sequence[Float[Tensor, "K _"]]) -> Float[Tensor, "K B"]:
    return torch.cat(list(parts), dim=1)


class RewardRole(Role):
    """What the driver knows of the reward ensemble."""

    def __init__(self, group: Group, rows: int) -> None:
        super().__init__(group)
        self.rows = rows

    def score(self, rollout: Rollout) -> Pending[Float[Tensor, "K B"]]:
        return self.track("reward", self.group.scatter("score", rollout, unit=self.rows, join=_join))
