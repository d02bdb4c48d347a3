"""Preference strength: what a reward model thinks of its own training labels, and what to do with the weak ones.

Source: Secrets of RLHF, part II, Wang et al. 2024 (arXiv 2401.06080), section 2. The strength of a pair is the
lead that reward models fitted to the same labels give to `chosen`, averaged over them. Wrong labels gather at
the weak end: flip the weakest, soften the next, and ask the rest for a margin.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from framework.component import Component
from framework.data.preferences import Pair


class PreferenceStrength(Component):
    """Training labels mended by the lead that a fitted reward model gives to `chosen`."""

    model: str
    """Folder of a reward model that `fit-reward` made from such pairs; best an ensemble, on few epochs."""
    flip_share: float = Field(default=0.1, ge=0, lt=0.5)
    """Share of the training pairs, the weakest, whose label is turned round."""
    soft_share: float = Field(default=0.0, ge=0, le=1)
    """Share, the next weakest, whose target becomes sigmoid(strength)."""
    margin: bool = False
    """Ask of every other pair a margin of its strength, where that is positive."""

    @model_validator(mode="after")
    def _shares(self) -> "PreferenceStrength":
        if self.flip_share + self.soft_share > 1:
            raise ValueError("flip_share and soft_share add up to more than 1: lower one")
        return self


def apply_strength(
    pairs: Sequence[Pair], strength: Float[np.ndarray, "N"], settings: PreferenceStrength
) -> tuple[list[Pair], dict[str, int]]:
    """The pairs in their order with labels mended, and how many were treated in each way.

    Shares are of the training pairs; held-out pairs stay as they are. Equal strengths rank in the order of the pairs.

    Args:
        strength: mean over heads of score(chosen) - score(rejected), raw: log-odds by Bradley-Terry.
    """
    assert len(pairs) == len(strength)
    train = np.array([i for i, pair in enumerate(pairs) if pair.split == "train"], dtype=int)
    ranked = train[np.argsort(strength[train], kind="stable")].tolist()
    num_flipped = round(settings.flip_share * len(train))
    num_soft = min(round(settings.soft_share * len(train)), len(train) - num_flipped)
    rest = ranked[num_flipped + num_soft :] if settings.margin else []
    mended = list(pairs)
    for i in ranked[:num_flipped]:
        mended[i] = turned_round(pairs[i])
    for i in ranked[num_flipped : num_flipped + num_soft]:
        mended[i] = replace(pairs[i], target=float(np.exp(-np.logaddexp(0.0, -float(strength[i])))))
    for i in rest:
        mended[i] = replace(pairs[i], margin=max(0.0, float(strength[i])))
    counts = {"flipped": num_flipped, "softened": num_soft, "margins": sum(float(strength[i]) > 0 for i in rest)}
    return mended, counts


def turned_round(pair: Pair) -> Pair:
    """The pair with the other label; a flipped one is then right again."""
    return replace(
        pair,
        chosen=pair.rejected,
        rejected=pair.chosen,
        gold_chosen=pair.gold_rejected,
        gold_rejected=pair.gold_chosen,
        chosen_ended=pair.rejected_ended,
        rejected_ended=pair.chosen_ended,
        flipped=not pair.flipped,
    )
