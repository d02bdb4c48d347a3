"""Settings of best-of-n: how large the one pool is that every curve is worked out from."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from framework.component import Component

Count = Annotated[int, Field(ge=1)]


class BestOfN(Component):
    """Sample a pool from the start policy, keep the best response of n by the proxy, and ask gold about it."""

    prompts: int = Field(default=64, ge=1)
    """Prompts of the world's `train` split that are sampled from, each once; a world with fewer gives all it has."""
    samples: int = Field(default=256, ge=2)
    """Responses to each prompt; the largest n there is."""
    ns: tuple[Count, ...] | None = Field(default=None, min_length=1)
    """Values of n on the curve, ascending. None: powers of two up to `samples`, and `samples` itself."""
    batch: int = Field(default=64, ge=16)
    """Rows sampled at a time."""

    @property
    def counts(self) -> tuple[int, ...]:
        """The values of n, ascending."""
        powers = (2**i for i in range(self.samples.bit_length()) if 2**i < self.samples)
        return self.ns or (*powers, self.samples)

    @model_validator(mode="after")
    def _counts_fit_the_pool(self) -> "BestOfN":
        ns = self.counts
        if max(ns) > self.samples:
            what = f"ns holds {max(ns)}, and a pool of samples={self.samples} has no best of more"
            raise ValueError(f"{what}: raise samples")
        if any(b <= a for a, b in pairwise(ns)):
            raise ValueError(f"ns={list(ns)} must ascend")
        return self
