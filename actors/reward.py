"""The reward role: the proxy ensemble, served as one component that returns every head's score."""

from pathlib import Path
from typing import Any, Literal

import torch

from actors.group import Pending
from actors.roles import WeightsRole
from framework.errors import RunError
from framework.gold import Reward
from framework.models.reward_folder import read_reference
from framework.models.reward_model import RewardModel
from framework.precision import Precision
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
        precision: Precision,
        divide: Literal["rows", "members"] = "rows",
        scorer: Reward | None = None,
    ) -> None:
        """`divide`: whether workers share out rows, and each loads all members now, or members; `scorer` as of `load`."""
        self.rows, self.max_cut_share, self.scorer = rows, max_cut_share, scorer
        self.precision, self.divide = precision, divide
        self.load(folder)

    def load(self, folder: str) -> None:
        """Be the reward model in `folder` from now on."""
        self.folder = folder
        self._held: tuple[Share, RewardModel] | None = None
        if self.divide == "rows":
            self._model((0, 1))

    def score(self, rollout: Rollout | Answers, share: Share = (0, 1)) -> Scores:
        """What each head and each encoding of a share of the members says of each response.

        Only the members of `share` are ever loaded here, where several workers divide them. A RunError for a score that
        is not finite, or too many texts that had to be cut.
        """
        model = self._model(share)
        try:
            scored = model.score(rollout.prompts, rollout.responses, rollout.ended.tolist())
        except RunError as error:
            raise RunError(f"{error} at step {rollout.step}") from error
        if scored.num_cut > self.max_cut_share * len(rollout):
            raise RunError(
                f"reward: {scored.num_cut} of {len(rollout)} texts are longer than the {model.max_tokens} tokens "
                f"that the model reads, at step {rollout.step}: raise fit_reward.max_tokens, or "
                "fit_reward.max_cut_share to accept the cut"
            )
        return scored

    def reference(self) -> ReferenceScores:
        """The whole ensemble's scores of the responses that it was calibrated on."""
        return read_reference(self.folder)

    def _model(self, share: Share) -> RewardModel:
        """The members of a share, loaded when first asked for: a worker that Ray restarted loads them again."""
        if self._held is None or self._held[0] != share:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            how: dict[str, Any] = {"rows": self.rows, "precision": self.precision, "scorer": self.scorer}
            self._held = share, RewardModel.load(self.folder, device, share=share, **how)
        return self._held[1]


class RewardRole(WeightsRole):
    """What the driver knows of the reward ensemble."""

    _reference: Pending[ReferenceScores] | None = None

    def score(self, rollout: Rollout | Answers) -> Pending[Scores]:
        if self.divide == "members":
            return self.track("reward", self.group.divide("score", rollout, join=Scores.of_heads))
        return self.track("reward", self.group.scatter("score", rollout, unit=self.rows, join=Scores.of_rows))

    def reference(self) -> Pending[ReferenceScores]:
        """The scores of the responses that the ensemble was calibrated on, asked for once."""
        if self._reference is None:
            self._reference = self.group.call("reference")
        return self._reference

    def load(self, folder: Path) -> Pending[list[Any]]:
        self._reference = None
        return super().load(folder)
