"""The forms that gold is fitted with as a function of d = sqrt(KL), in sqrt(nats per sequence).

Each is R0 + alpha * first(d) - beta * second(d): linear in its coefficients. Its slope has the sign of
alpha - beta * x with a rising x(d), which is all that is needed to find the peak and how sure of it one may be.
"""

import math
from typing import Protocol

import numpy as np
from jaxtyping import Float

LARGEST_EXPONENT = 700.0
"""exp of more than this has no float."""


class Form(Protocol):
    """A curve through R0 at d = 0."""

    name: str
    formula: str
    """For a legend or a table, R0 left out."""

    def basis(self, d: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points 2"]:
        """What alpha and beta are multiplied with in gold."""
        ...

    def ratio_at(self, d: float) -> float:
        """The alpha / beta with which gold's slope is zero at d: the x of the slope's sign, alpha - beta * x."""
        ...

    def flat_at(self, ratio: float) -> float:
        """The d at which the slope is zero, given alpha / beta: the inverse of `ratio_at`; infinite past any float."""
        ...


class BestOfN:
    """d (alpha - beta d), for best-of-n (arXiv 2210.10760); peak at alpha / (2 beta)."""

    name = "bon"
    formula = "d (α − β d)"

    def basis(self, d: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points 2"]:
        """d and -d²."""
        return np.stack([d, -(d**2)], axis=1)

    def ratio_at(self, d: float) -> float:
        """2 d."""
        return 2 * d

    def flat_at(self, ratio: float) -> float:
        """alpha / (2 beta); 0 where the slope is negative from the start."""
        return max(ratio, 0.0) / 2


class Rl:
    """d (alpha - beta log d), for RL (arXiv 2210.10760), 0 at d = 0; peak at exp(alpha / beta - 1).

    Its slope grows without bound towards d = 0: do not read it there.
    """

    name = "rl"
    formula = "d (α − β log d)"

    def basis(self, d: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points 2"]:
        """d and -d log d, which is 0 at 0."""
        return np.stack([d, -d * np.log(np.where(d > 0, d, 1.0))], axis=1)

    def ratio_at(self, d: float) -> float:
        """1 + log d."""
        return 1 + math.log(d) if d > 0 else -math.inf

    def flat_at(self, ratio: float) -> float:
        """exp(alpha / beta - 1)."""
        return math.exp(ratio - 1) if ratio < LARGEST_EXPONENT else math.inf


class Quadratic:
    """alpha KL - beta KL², a parabola in KL itself: what the two forms of the paper are held against."""

    name = "quadratic"
    formula = "α d² − β d⁴"

    def basis(self, d: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points 2"]:
        """d² and -d⁴."""
        return np.stack([d**2, -(d**4)], axis=1)

    def ratio_at(self, d: float) -> float:
        """2 d²."""
        return 2 * d**2

    def flat_at(self, ratio: float) -> float:
        """sqrt(alpha / (2 beta)); 0 where the slope is negative from the start."""
        return math.sqrt(max(ratio, 0.0) / 2)


FORMS: dict[str, Form] = {form.name: form for form in (BestOfN(), Rl(), Quadratic())}
