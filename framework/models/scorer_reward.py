"""A scorer in the reward model's place: a Python function or a judge as the proxy, with nothing fitted."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from framework.artifacts import fingerprint
from framework.component import spelled
from framework.errors import UserError
from framework.gold import Reward
from framework.length_curve import text_lengths
from framework.models.encoding import Ended
from framework.models.reward_folder import read_reference, read_settings
from framework.models.reward_model import RewardModel
from framework.types import ReferenceScores, Scores


class ScorerReward(RewardModel):
    """One head, which says what the scorer says of texts, ended or not, in its own unit: centre 0 and scale 1."""

    num_heads = 1

    def __init__(self, settings: Reward, device: str = "cpu") -> None:
        super().__init__([], [], max_tokens=0)
        self.settings, self.scorer = settings, settings.build(device)

    def read(self, prompts: Sequence[str], responses: Sequence[str], ended: Ended = None) -> Scores:
        """The scores of all texts, asked for at once."""
        scored = self.scorer.score(prompts, responses)
        return Scores(scored.values[None], scored.num_cut)

    def calibrate(
        self, prompts: Sequence[str], responses: Sequence[str], ended: Ended = None, *, by_length: bool = False
    ) -> int:
        """Keep the scores of reference responses, which transforms compare with; they change no score."""
        scored = self.score(prompts, responses, ended)
        self._reference = ReferenceScores(scored.values, text_lengths(responses))
        return scored.num_cut

    def save(self, folder: Path) -> None:
        """Write down which scorer it is, its function's source included, and the reference scores."""
        own = spelled(self.settings)
        member = {"folder": ".", "heads": 1, "kind": "scorer", "scorer": own, "fingerprint": fingerprint(own, {})}
        self._write(folder, [member])

    @classmethod
    def reopened(cls, folder: Path, settings: Reward | None, device: str) -> "ScorerReward":
        """What `save` wrote; `settings` are those of now, which may differ in what changes no score. None: as it was.

        A `UserError` where the function is not the one that it was.
        """
        (member,) = read_settings(folder)[0]["members"]
        settings = settings or TypeAdapter(Reward).validate_python(member["scorer"])
        if fingerprint(spelled(settings), {}) != member["fingerprint"]:
            raise UserError(
                f"the reward (kind {settings.kind}) or its function's source is not what {folder} was made with: "
                "put it back as it was, or begin another run"
            )
        model = cls(settings, device)
        model._reference = read_reference(folder)
        return model
