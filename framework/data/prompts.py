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
        positions, size = tuple(range(at * count, (at + 1) * count)), len(self.prompts)
        places = (_order(size, self.seed, position // size)[position % size] for position in positions)
        return positions, tuple(self.prompts[place] for place in places)


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(numpy_generator(seed, "prompts", epoch).permutation(count).tolist())
