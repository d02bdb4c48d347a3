"""The reward role: the proxy ensemble, served as one component that returns every head's score."""

from collections.abc import Sequence
from typing import Literal

import torch

from actors.group import Group, Pending
from actors.role import Role
from framework.errors import RunError
from framework.models.reward_folder import read_reference
from framework.models.reward_model import RewardModel
from framework.types import Answers, ReferenceScores, Rollout, Scores

Share = tuple[int, int]
"""(rank, size): which part of the ensemble's members."""


class RewardWorker:
    """K calibrated scores per response and its distance from training, a fixed number of rows per forward pass."""

    def __init__(
        self,
        folder: str,
        rows: int,
        max_cut_share: float,
        precision: Literal["float32", "bfloat16"],
        divide: Literal["rows", "members"] = "rows",
    ) -> None:
        """`divide`: whether workers share out rows, and each loads all members now, or members."""
        self.folder, self.rows, self.max_cut_share = folder, rows, max_cut_share
        self.precision: Literal["float32", "bfloat16"] = precision
        self._held: tuple[Share, RewardModel] | None = None
        if divide == "rows":
            self._model((0, 1))

    def score(self, rollout: Rollout | Answers, share: Share = (0, 1)) -> Scores:
        """What each head and each encoding of a share of the members says of each response.

        Args:
            share: of the members, where several workers divide them; only those are ever loaded here.

        Raises:
            RunError: a score that is not finite, or too many texts that had to be cut.
        """
        model = self._model(share)
        try:
            scored = model.score(rollout.prompts, rollout.responses)
        except RunError as error:
            raise RunError(f"{error} at step {rollout.step}") from error
        if scored.num_cut > self.max_cut_share * len(rollout):
            raise RunError(
                f"reward: {scored.num_cut} of {len(rollout)} texts are longer than the {model.max_tokens} tokens "
                f"that the model reads, at step {rollout.step}: raise fit_reward.max_tokens, or "
                "fit_reward.max_cut_share to accept the cut"
            )
        return Scores(scored.values, scored.distances)

    def reference(self) -> ReferenceScores:
        """The whole ensemble's scores of the responses that it was calibrated on."""
        return read_reference(self.folder)

    def _model(self, share: Share) -> RewardModel:
        """The members of a share, loaded when first asked for: a worker that Ray restarted loads them again."""
        if self._held is None or self._held[0] != share:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            model = RewardModel.load(
                self.folder, device, share=share, rows=self.rows, precision=self.precision
            )
            self._held = (share, model)
        return self._held[1]


def _side_by_side(parts: Sequence[Scores]) -> Scores:
    """The scores of all rows, from workers that divided them."""
    return _joined(parts, dim=1)


def _stacked(parts: Sequence[Scores]) -> Scores:
    """The scores of all heads, from workers that divided the members."""
    return _joined(parts, dim=0)


def _joined(parts: Sequence[Scores], dim: int) -> Scores:
    return Scores(
        torch.cat([part.values for part in parts], dim=dim),
        torch.cat([part.distances for part in parts], dim=dim),
    )


class RewardRole(Role):
    """What the driver knows of the reward ensemble."""

    def __init__(self, group: Group, rows: int, divide: Literal["rows", "members"] = "rows") -> None:
        """`divide`: whether workers divide the rows of a batch or the members of the ensemble."""
        super().__init__(group)
        self.rows, self.divide = rows, divide

    def score(self, rollout: Rollout | Answers) -> Pending[Scores]:
        if self.divide == "members":
            return self.track("reward", self.group.divide("score", rollout, join=_stacked))
        return self.track("reward", self.group.scatter("score", rollout, unit=self.rows, join=_side_by_side))

    def reference(self) -> Pending[ReferenceScores]:
        """The scores of the responses that the ensemble was calibrated on."""
        return self.group.call("reference")
