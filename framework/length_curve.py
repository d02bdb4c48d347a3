"""What length alone does to a score: post-hoc calibration of a reward for length (Huang et al. 2024, arXiv 2409.17407).

The regression is LOWESS (Cleveland, 1979): at each length a weighted straight line through the nearest responses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from framework.tensor import Tensor

FRACTION = 0.5
"""Of the responses that a local line is fitted to, more is smoother: the default of the paper's released code."""
ROBUST_ITERATIONS = 3
"""Reweightings by which outlying scores lose their say; as there."""


@dataclass(frozen=True, eq=False)
class LengthCurve:
    """One curve per head, in units of its scores; its mean over the responses it was fitted to is zero.

    Subtracting it takes the length out of a score and leaves the mean score of those responses as it was.
    """

    knots: Float[Tensor, "M"]
    """Characters: the distinct lengths it was fitted at, ascending."""
    values: Float[Tensor, "K M"]
    """Score units: what each length adds to each head's score."""

    @classmethod
    def fit(
        cls, lengths: Float[Tensor, "N"], scores: Float[Tensor, "K N"], fraction: float = FRACTION
    ) -> "LengthCurve":
        """The curve of each head through `scores` at `lengths` (characters)."""
        import torch

        assert len(lengths), "a length curve needs at least one response"
        x = lengths.double().numpy()
        knots, place = np.unique(x, return_inverse=True)
        curves = []
        for head in scores.double().numpy():
            curve = _smooth(x, head, knots, fraction)
            curves.append(curve - curve[place].mean())
        return cls(torch.from_numpy(knots).float(), torch.from_numpy(np.stack(curves)).float())

    def __call__(self, lengths: Float[Tensor, "B"]) -> Float[Tensor, "K B"]:
        """What these lengths add to each head's score; beyond the fitted lengths the ends are held."""
        import torch

        x, knots = lengths.double().cpu().numpy(), self.knots.double().numpy()
        read = np.stack([np.interp(x, knots, curve) for curve in self.values.double().numpy()])
        return torch.from_numpy(read).to(self.values.dtype)

    def tensors(self) -> dict[str, Tensor]:
        """What `from_tensors` reads, by the names they have on disk."""
        return {"length_knots": self.knots, "length_values": self.values}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], heads: slice = slice(None)) -> "LengthCurve":
        """The curves that `tensors` gave, or those of some heads."""
        return cls(tensors["length_knots"], tensors["length_values"][heads])


def text_lengths(texts: Sequence[str]) -> Float[Tensor, "B"]:
    """Characters of each text: the length that a curve is read at."""
    import torch

    return torch.tensor([float(len(text)) for text in texts])


def _smooth(
    x: Float[np.ndarray, "N"], y: Float[np.ndarray, "N"], knots: Float[np.ndarray, "M"], fraction: float
) -> Float[np.ndarray, "M"]:
    """LOWESS of `y` on `x`, read at `knots`.

    Where the nearest responses share a length, or are a handful, no line can be fitted: the curve is then their mean,
    the paper's simpler estimate.
    """
    from statsmodels.nonparametric.smoothers_lowess import lowess  # slow to import

    with np.errstate(invalid="ignore", divide="ignore"):
        curve: np.ndarray = lowess(y, x, frac=fraction, it=ROBUST_ITERATIONS, xvals=knots)
    count = max(1, int(fraction * len(x)))
    for i in np.flatnonzero(~np.isfinite(curve)):
        away = np.abs(x - knots[i])
        curve[i] = y[away <= np.sort(away)[count - 1]].mean()
    return curve
