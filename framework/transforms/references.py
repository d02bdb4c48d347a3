"""What a transform may compare a reward with: the reward model's reference responses, and fresh answers."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from framework.length_curve import text_lengths
from framework.types import Answers


@dataclass(frozen=True, eq=False)
class ReferenceRewards:
    """Rewards of the responses that the reward model was calibrated on; compared by identity."""

    rewards: Float[Tensor, "N"]
    """After aggregation, and after the transforms that came before."""
    lengths: Float[Tensor, "N"]
    """Characters of each response."""


@dataclass(frozen=True, eq=False)
class AnswerScores:
    """Every head's scores of M answers of the reference policy to the prompt of each row of a rollout."""

    scores: Float[Tensor, "K B M"]
    lengths: Float[Tensor, "B M"]
    """Characters of each answer."""


def answers_per_row(answers: Answers, scores: Float[Tensor, "K A"], group: Int[Tensor, "B"]) -> AnswerScores:
    """The scored answers beside the rows whose prompt they answer.

    Args:
        answers: the same number for every group, those of one group adjacent.
        group: of each row.
    """
    order = {int(number): place for place, number in enumerate(dict.fromkeys(answers.group.tolist()))}
    place = torch.tensor([order[number] for number in group.tolist()], dtype=torch.long)
    count = len(answers) // max(1, len(order))
    by_group = scores.reshape(len(scores), -1, count)
    lengths = text_lengths(answers.responses).reshape(-1, count)
    return AnswerScores(by_group[:, place], lengths[place])
