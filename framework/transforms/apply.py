"""The transforms of a run, one after the other."""

from collections.abc import Callable
from functools import lru_cache

from jaxtyping import Float, Int

from framework.aggregation import Aggregation
from framework.length_curve import text_lengths
from framework.tensor import Tensor
from framework.transforms import Transform
from framework.types import Answers, ReferenceScores, Rollout


def apply_transforms(
    transforms: tuple[Transform, ...],
    aggregation: Aggregation,
    rollout: Rollout,
    proxy: Float[Tensor, "B"],
    answers: ReferenceScores | None,
    reference: Callable[[], ReferenceScores],
) -> Float[Tensor, "B"]:
    """What the policy is paid for each response, in the units that the last transform gives.

    Args:
        proxy: the aggregated scores of the rollout, reference standard deviations.
        answers: scores of answers of the reference policy, where a transform needs them.
        reference: gives the reward model's reference scores; not called without transforms.
    """
    if not transforms:
        return proxy
    reward, lengths = proxy, text_lengths(rollout.responses)
    against = None if answers is None else aggregation(answers.scores.flatten(1))
    for transform, seen in zip(transforms, _stages(transforms, aggregation, reference()), strict=True):
        beside = None if answers is None or against is None else against.view(answers.lengths.shape)
        reward = transform(reward, lengths, beside, seen)
        if answers is not None and against is not None and not transform.needs_answers:
            against = transform(against, answers.lengths.flatten(), None, seen)
    return reward


@lru_cache(maxsize=8)
def _stages(
    transforms: tuple[Transform, ...], aggregation: Aggregation, reference: ReferenceScores
) -> tuple[ReferenceScores, ...]:
    """The reference responses' rewards as each transform finds them; after a comparison they stay as they were."""
    rewards = aggregation(reference.scores)
    stages = []
    for transform in transforms:
        stage = ReferenceScores(rewards.unsqueeze(0), reference.lengths)
        stages.append(stage)
        if not transform.needs_answers:
            rewards = transform(rewards, reference.lengths, None, stage)
    return tuple(stages)


def answers_per_row(answers: Answers, scores: Float[Tensor, "K A"], group: Int[Tensor, "B"]) -> ReferenceScores:
    """Every head's scores [K B M] of the M answers to each row's prompt, and their lengths [B M] in characters.

    There are as many answers for every group, and those of one group are adjacent; `group` is that of each row.
    """
    import torch

    order = {int(number): place for place, number in enumerate(dict.fromkeys(answers.group.tolist()))}
    place = torch.tensor([order[number] for number in group.tolist()], dtype=torch.long)
    count = len(answers) // max(1, len(order))
    lengths = text_lengths(answers.responses).reshape(-1, count)
    return ReferenceScores(scores.reshape(len(scores), -1, count)[:, place], lengths[place])
