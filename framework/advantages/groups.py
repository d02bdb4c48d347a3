"""Statistics over rows that answer the same prompt."""

from jaxtyping import Float, Int

from framework.errors import UserError
from framework.masked import keep, sequence_sum
from framework.tensor import Tensor
from framework.types import Credited, Shaped


def sequence_scores(shaped: Shaped) -> Float[Tensor, "B"]:
    """What each row earned in all, in reward units and 64-bit floats: its token rewards summed.

    In 32 bits the mean of equal scores is not always that score, and a difference of nothing, divided by a standard
    deviation of nothing, would become an advantage. A row without a real token counts in its group with 0.
    """
    return sequence_sum(shaped.token_rewards, shaped.rollout.mask).double()


def group_sums(
    values: Float[Tensor, "B"], group: Int[Tensor, "B"], kind: str
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Sum of `values` over each row's group, and the size of that group, both per row; a group of one is refused."""
    _, index, counts = group.unique(return_inverse=True, return_counts=True)
    if counts.numel() and counts.min() < 2:
        what = f"advantage {kind} compares responses to one prompt, and a prompt has only one response"
        raise UserError(f"{what}: sample at least two per prompt, or set train.advantage.kind=gae")
    sums = values.new_zeros(counts.shape[0]).index_add(0, index, values)
    return sums[index], counts[index].to(values.dtype)


def credit_rows(shaped: Shaped, row_advantage: Float[Tensor, "B"]) -> Credited:
    """Every token of a row with its row's advantage; returns are 0, as there is no critic to fit."""
    like = shaped.token_rewards
    advantages = keep(row_advantage.to(like.dtype)[:, None].expand_as(like), shaped.rollout.mask)
    return Credited(shaped, advantages, like.new_zeros(like.shape))
