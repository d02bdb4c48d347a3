"""The transforms of a run, one after the other."""

from collections.abc import Callable
from functools import lru_cache

from jaxtyping import Float
from torch import Tensor

from framework.aggregation import Aggregation
from framework.length_curve import text_lengths
from framework.transforms import Transform
from framework.transforms.references import AnswerScores, ReferenceRewards
from framework.types import ReferenceScores, Rollout


def transformed(
    transforms: tuple[Transform, ...],
    aggregation: Aggregation,
    rollout: Rollout,
    proxy: Float[Tensor, "B"],
    answers: AnswerScores | None,
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
) -> tuple[ReferenceRewards, ...]:
    """The reference responses' rewards as each transform finds them; after a comparison they stay as they were."""
    rewards = aggregation(reference.scores)
    stages = []
    for transform in transforms:
        stage = ReferenceRewards(rewards, reference.lengths)
        stages.append(stage)
        if not transform.needs_answers:
            rewards = transform(rewards, reference.lengths, None, stage)
    return tuple(stages)
