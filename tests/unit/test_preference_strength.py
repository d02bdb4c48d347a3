import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from framework.data.preferences import Pair
from framework.training.preference_strength import PreferenceStrength, apply_strength, turned_round

PAIRS = [Pair("p", f"chosen {i}", f"rejected {i}", float(i), -1.0, False) for i in range(10)]
STRENGTH = np.array([3.0, -2.0, 0.5, 1.0, -0.5, 2.0, 0.0, 4.0, 5.0, 6.0])


def test_weakest_flipped_next_softened_rest_given_a_margin():
    settings = PreferenceStrength(model="m", flip_share=0.2, soft_share=0.2, margin=True)
    mended, counts = apply_strength(PAIRS, STRENGTH, settings)
    assert counts == {"flipped": 2, "softened": 2, "margins": 6}
    assert [i for i in range(10) if mended[i].flipped] == [1, 4]
    assert (mended[1].chosen, mended[1].gold_chosen, mended[1].gold_rejected) == ("rejected 1", -1, 1)
    assert mended[1].target == 1 and mended[1].margin == 0
    assert (mended[6].target, mended[2].target) == (0.5, pytest.approx(1 / (1 + math.exp(-0.5))))
    assert mended[2].margin == 0
    assert {i: mended[i].margin for i in (0, 3, 5, 7, 8, 9)} == {0: 3, 3: 1, 5: 2, 7: 4, 8: 5, 9: 6}


def test_margins_are_never_negative_and_off_by_default():
    only_margins = PreferenceStrength(model="m", flip_share=0, margin=True)
    mended, counts = apply_strength(PAIRS, STRENGTH, only_margins)
    assert mended[1].margin == 0 and counts["margins"] == 7
    mended, counts = apply_strength(PAIRS, STRENGTH, PreferenceStrength(model="m"))
    assert all(pair.margin == 0 and pair.target == 1 for pair in mended)
    assert sum(pair.flipped for pair in mended) == 1
    mended, _ = apply_strength(PAIRS, STRENGTH, PreferenceStrength(model="m", flip_share=0))
    assert mended == PAIRS


def test_a_flip_of_a_flipped_pair_restores_it():
    pair = Pair("p", "a", "b", 0.0, 1.0, True, weight=3.0)
    assert turned_round(pair) == Pair("p", "b", "a", 1.0, 0.0, False, weight=3.0)
    assert turned_round(turned_round(pair)) == pair


def test_held_out_pairs_are_left_alone_and_not_counted_in_shares():
    held = [replace(pair, split="held_out") for pair in PAIRS]
    settings = PreferenceStrength(model="m", flip_share=0.2, soft_share=0.3, margin=True)
    mended, counts = apply_strength([*held, *PAIRS], np.concatenate([STRENGTH - 100, STRENGTH]), settings)
    assert mended[:10] == held
    assert mended[10:] == apply_strength(PAIRS, STRENGTH, settings)[0]
    assert counts["flipped"] == 2


def test_flipping_the_weakest_mends_noisy_labels():
    random = np.random.default_rng(0)
    gold = random.normal(size=(400, 2))
    flips = random.random(400) < 0.25
    pairs, lead = [], []
    for (a, b), flipped in zip(np.sort(gold, axis=1)[:, ::-1].tolist(), flips.tolist(), strict=True):
        pair = Pair("p", str(a), str(b), a, b, False)
        pairs.append(turned_round(pair) if flipped else pair)
        lead.append(pairs[-1].gold_chosen - pairs[-1].gold_rejected)
    # A model that has learnt gold but for noise, as one fitted to mostly right labels would.
    strength = np.array(lead) + 0.5 * random.normal(size=400)
    mended, _ = apply_strength(pairs, strength, PreferenceStrength(model="m", flip_share=0.2))

    def right(labelled):
        return np.mean([pair.gold_chosen > pair.gold_rejected for pair in labelled])

    assert right(mended) > right(pairs) + 0.1
    assert all(pair.flipped == (pair.gold_chosen < pair.gold_rejected) for pair in mended)


def test_shares_beyond_one_are_refused():
    with pytest.raises(ValidationError, match="more than 1"):
        PreferenceStrength(model="m", flip_share=0.3, soft_share=0.8)


def test_a_very_negative_strength_is_a_target_near_zero():
    settings = PreferenceStrength(model="m", flip_share=0, soft_share=1)
    mended, _ = apply_strength(PAIRS[:2], np.array([-1e4, 1e4]), settings)
    assert [pair.target for pair in mended] == [0, 1]
