import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from framework.data.augment import _Others, augment
from framework.data.preferences import Pair
from framework.errors import UserError

PAIRS = [
    Pair(f"prompt {i % 10}", f"good {i}", f"bad {i}", 1.0, 0.0, i % 3 == 0, margin=0.5, weight=1.0 + i)
    for i in range(40)
]
HELD = [
    replace(pair, prompt=f"held {i}", chosen=f"held good {i}", split="held_out") for i, pair in enumerate(PAIRS[:9])
]
PROMPT_OF = {text: pair.prompt for pair in PAIRS for text in (pair.chosen, pair.rejected)}


def test_three_kinds_from_other_prompts_only():
    pairs, counts = augment(PAIRS, 1.0, seed=3)
    assert pairs[:40] == PAIRS
    added = pairs[40:]
    assert counts == {
        "chosen_over_off_prompt": 40, "rejected_over_off_prompt": 40, "off_prompt_ties": 40, "same_text": 0
    }  # fmt: skip
    for i, pair in enumerate(PAIRS):
        first, second, tie = added[3 * i : 3 * i + 3]
        assert {p.prompt for p in (first, second, tie)} == {pair.prompt}
        assert (first.chosen, first.target) == (pair.chosen, 1)
        assert first.rejected.startswith("good")
        assert (second.chosen, second.target) == (pair.rejected, 1)
        assert (tie.target, tie.chosen[:4], tie.rejected[:3]) == (0.5, "good", "bad")
        for text in (first.rejected, second.rejected, tie.chosen, tie.rejected):
            assert PROMPT_OF[text] != pair.prompt
        for made in (first, second, tie):
            assert (made.margin, made.weight, made.flipped, made.split) == (0, pair.weight, False, "train")
            assert math.isnan(made.gold_chosen) and math.isnan(made.gold_rejected)
    lent = Counter(p.rejected.split()[0] for p in added[1::3])
    assert min(lent["good"], lent["bad"]) > 8


def test_share_and_seed():
    some, counts = augment(PAIRS, 0.25, seed=3)
    assert len(some) == 40 + 30 and counts["off_prompt_ties"] == 10
    assert augment(PAIRS, 0.25, seed=3) == (some, counts)
    assert augment(PAIRS, 0.25, seed=4)[0] != some


def test_held_out_pairs_are_neither_touched_nor_lent():
    pairs, _ = augment([*HELD, *PAIRS], 1.0, seed=3)
    assert pairs[:9] == HELD
    assert len(pairs) == 9 + 40 + 120
    assert not any("held" in text for p in pairs[9:] for text in (p.prompt, p.chosen, p.rejected))


def test_the_same_text_is_never_compared_with_itself():
    same = [replace(pair, chosen="yes") for pair in PAIRS]
    pairs, counts = augment(same, 1.0, seed=0)
    assert counts["chosen_over_off_prompt"] == 0 and counts["same_text"] == 40
    assert all(pair.chosen != pair.rejected for pair in pairs)


def test_one_prompt_is_refused_even_if_held_out_pairs_have_others():
    alone = [replace(pair, prompt="p") for pair in PAIRS]
    with pytest.raises(UserError, match="two prompts"):
        augment([*HELD, *alone], 0.5, seed=0)


def test_others_are_drawn_evenly_and_never_from_the_same_prompt():
    prompts = ["b", "a", "b", "c", "a", "b"]
    others, random = _Others(prompts), np.random.default_rng(0)
    for row, prompt in enumerate(prompts):
        seen = Counter(others.draw(row, random) for _ in range(600))
        allowed = [i for i, p in enumerate(prompts) if p != prompt]
        assert sorted(seen) == allowed
        assert min(seen.values()) > 600 / len(allowed) * 0.7
