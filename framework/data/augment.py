"""Comparisons with responses to other prompts, so that a reward cannot live on what no prompt asks for.

RRM, Liu et al. 2024 (arXiv 2409.13156); docs/method.md, section 4.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field

from framework.component import Component
from framework.data.preferences import Pair
from framework.errors import UserError
from framework.seeding import numpy_generator


class Augment(Component):
    """Off-prompt comparisons added to the training pairs: up to three for each pair of the share."""

    share: float = Field(gt=0, le=1)
    """Share of the training pairs that comparisons are added for."""


def augment(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], dict[str, int]]:
    """The pairs as given, then the added ones; and how many of each kind were added.

    For a pair on prompt x and one, drawn evenly, of those on other prompts:

        chosen of x    beats  the other's chosen
        rejected of x  beats  the other's chosen or rejected, by a coin
        the other's chosen and rejected, read as answers to x, tie: target 0.5

    Held-out pairs stay as they are and lend nothing. An added pair has the weight of the pair it was made for, no
    margin, and no gold score. One whose two responses are the same text is left out and counted. Raises UserError where
    all training pairs are on one prompt.
    """
    train = [pair for pair in pairs if pair.split == "train"]
    others = _Others([pair.prompt for pair in train])
    random = numpy_generator(seed, "augment")
    counts = {"chosen_over_off_prompt": 0, "rejected_over_off_prompt": 0, "off_prompt_ties": 0, "same_text": 0}
    added = []
    for index in sorted(random.permutation(len(train))[: round(share * len(train))].tolist()):
        pair, other = train[index], train[others.draw(index, random)]
        chosen, rejected = (pair.chosen, pair.chosen_ended), (pair.rejected, pair.rejected_ended)
        others_chosen, others_rejected = (other.chosen, other.chosen_ended), (other.rejected, other.rejected_ended)
        lent = others_chosen if random.random() < 0.5 else others_rejected
        for kind, (first, first_ended), (second, second_ended), target in (
            ("chosen_over_off_prompt", chosen, others_chosen, 1.0),
            ("rejected_over_off_prompt", rejected, lent, 1.0),
            ("off_prompt_ties", others_chosen, others_rejected, 0.5),
        ):
            counts["same_text" if first == second else kind] += 1
            if first != second:
                added.append(replace(
                    pair, chosen=first, rejected=second, target=target, margin=0.0, flipped=False, gold_chosen=math.nan,
                    gold_rejected=math.nan, chosen_ended=first_ended, rejected_ended=second_ended,
                ))  # fmt: skip
    return [*pairs, *added], counts


class _Others:
    """Draws, for each row, one of the rows on other prompts; all are equally likely."""

    def __init__(self, prompts: Sequence[str]) -> None:
        # Rows in order of their prompt: those of one prompt are then a single stretch to step over.
        names, group = np.unique(np.array(prompts, dtype=object), return_inverse=True)
        if len(names) < 2:
            what = "needs training pairs on at least two prompts, and all are on one"
            raise UserError(f"fit_reward.augment {what}: add prompts, or leave augment out")
        self.order = np.argsort(group, kind="stable")
        self.sizes = np.bincount(group)[group]
        self.starts = np.searchsorted(group[self.order], group)

    def draw(self, row: int, random: np.random.Generator) -> int:
        place = int(random.integers(len(self.order) - self.sizes[row]))
        return int(self.order[place if place < self.starts[row] else place + self.sizes[row]])
