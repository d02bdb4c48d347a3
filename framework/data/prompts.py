"""An endless, stateless stream of prompts: what step `s` sees depends on the seed and `s` alone."""

from collections.abc import Sequence
from functools import lru_cache

from framework.errors import UserError
from framework.seeding import numpy_generator


class PromptStream:
    """Prompts in a fresh order each epoch; any step can be asked for at any time."""

    def __init__(self, prompts: Sequence[str], seed: int) -> None:
        if not prompts:
            raise UserError("the prompt set is empty: check the prompts' file, column and split")
        self.prompts, self.seed = tuple(prompts), seed

    def take(self, count: int, at: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Positions in the stream and texts of the `count` prompts that belong to step `at`."""
        positions = tuple(range(at * count, (at + 1) * count))
        return positions, tuple(self._at(position) for position in positions)

    def _at(self, position: int) -> str:
        epoch, offset = divmod(position, len(self.prompts))
        return self.prompts[_order(len(self.prompts), self.seed, epoch)[offset]]


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(numpy_generator(seed, "prompts", epoch).permutation(count).tolist())
