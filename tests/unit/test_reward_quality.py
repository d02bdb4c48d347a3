import math

import numpy as np
import pytest

from framework.analysis.reward_quality import compare, disagreement, head_correlation, held_out_quality, reliability

CHOSEN = np.array([[1.0, 0.0, 2.0, 1.0], [0.0, 0.0, 0.0, 4.0]])
REJECTED = np.array([[0.0, 0.0, 3.0, 0.0], [0.0, -1.0, -1.0, 0.0]])
LABELS = np.ones(4)
RIGHT = np.zeros(4, dtype=bool)


def test_accuracy_is_the_share_of_pairs_each_head_orders_as_the_label_does():
    figures = held_out_quality(CHOSEN, REJECTED, LABELS, RIGHT)
    assert figures["accuracy_on_labels"] == pytest.approx(6 / 8)  # a tie counts one half
    assert figures["accuracy_on_gold"] == figures["accuracy_on_labels"]
    # The mean leads are 0.5, 0.5, 0 and 2.5.
    assert figures["mean_accuracy_on_labels"] == pytest.approx(3.5 / 4)


def test_gold_undoes_flips_and_may_be_unknown():
    flipped = np.array([True, False, False, False])
    figures = held_out_quality(CHOSEN, REJECTED, LABELS, flipped)
    assert figures["mean_accuracy_on_gold"] == pytest.approx(2.5 / 4)
    assert figures["mean_accuracy_on_labels"] == pytest.approx(3.5 / 4)
    # Head 0: 0, 1/2, 0, 1. Head 1: 1/2, 1, 1, 1.
    assert figures["accuracy_on_gold"] == pytest.approx((1.5 + 3.5) / 8)
    figures = held_out_quality(CHOSEN, REJECTED, LABELS, None)
    assert figures["accuracy_on_gold"] is None and figures["mean_accuracy_on_gold"] is None


def test_brier_and_nll_by_hand():
    chosen, rejected = np.array([[0.0, math.log(3)]]), np.zeros((1, 2))
    figures = held_out_quality(chosen, rejected, np.array([1.0, 0.25]), RIGHT[:2])
    assert figures["brier"] == pytest.approx((0.25 + 0.25) / 2)
    assert figures["nll"] == pytest.approx((math.log(2) + 0.25 * math.log(4 / 3) + 0.75 * math.log(4)) / 2)
    # A soft label of 1/4 agrees with a preference for chosen a quarter of the time.
    assert figures["accuracy_on_labels"] == pytest.approx((0.5 + 0.25) / 2)


def test_a_calibrated_model_has_no_error_and_a_boaster_has():
    random = np.random.default_rng(0)
    lead = random.normal(size=(1, 20000)) * 1.5
    wins = random.random(20000) < 1 / (1 + np.exp(-lead[0]))
    lead[:, ~wins] *= -1  # the pair as labelled: chosen is what won
    zero, right = np.zeros_like(lead), np.zeros(20000, dtype=bool)
    honest = held_out_quality(lead, zero, np.ones(20000), right)
    boaster = held_out_quality(3 * lead, zero, np.ones(20000), right)
    assert honest["ece"] < 0.015
    assert boaster["ece"] > 0.1
    assert boaster["nll"] > honest["nll"]
    assert boaster["accuracy_on_labels"] == honest["accuracy_on_labels"]


def test_reliability_does_not_depend_on_which_side_is_called_chosen():
    random = np.random.default_rng(1)
    chosen, rejected, target = random.normal(size=(3, 40)), random.normal(size=(3, 40)), random.random(40)
    there, back = reliability(chosen, rejected, target), reliability(rejected, chosen, 1 - target)
    assert [b["count"] for b in there] == [4] * 10
    table = held_out_quality(chosen, rejected, target, None)["reliability"]
    assert table[3] == there[3] and there[3]["count"] == 4
    for one, other in zip(there, back, strict=True):
        assert one == pytest.approx(other)
    sure = [b["predicted"] for b in there]
    assert sure == sorted(sure) and 0.5 <= sure[0] <= sure[-1] <= 1


def test_ece_by_hand_and_with_few_pairs():
    lead = np.array([[math.log(3), -math.log(3)]])
    bins = reliability(lead, np.zeros_like(lead), np.ones(2))
    assert [tuple(b.values()) for b in bins] == [(pytest.approx(0.75), 1, 1), (pytest.approx(0.75), 0, 1)]
    quality = held_out_quality(lead, np.zeros_like(lead), np.ones(2), None)
    assert quality["ece"] == pytest.approx((0.25 + 0.75) / 2)


def test_head_correlation():
    a = np.array([0.0, 1.0, 2.0, 5.0])
    assert head_correlation(np.stack([a, 3 * a + 1])) == pytest.approx(1)
    assert head_correlation(np.stack([a, a, -a])) == pytest.approx(-1 / 3)
    assert head_correlation(np.stack([a, a, np.full(4, 0.1)])) == pytest.approx(1)
    assert head_correlation(a[None]) is None
    assert head_correlation(np.stack([a, np.zeros(4)])) is None
    assert head_correlation(np.ones((2, 1))) is None


def test_disagreement_is_the_population_deviation():
    assert disagreement(np.array([[0.0, 1.0], [2.0, 1.0]])) == pytest.approx(0.5)
    assert disagreement(CHOSEN[:1]) == 0


def test_compare_takes_sets_of_different_size_and_never_divides_by_zero():
    reference, policy = CHOSEN, np.array([[0.0, 4.0, 1.0], [2.0, 0.0, 3.0]])
    figures = compare(reference, policy)
    assert figures["disagreement_ratio"] == pytest.approx(disagreement(policy) / disagreement(reference))
    assert figures["head_correlation_policy"] == pytest.approx(np.corrcoef(policy)[0, 1])
    alone = compare(reference[:1], policy[:1])
    assert alone["disagreement_reference"] == 0
    assert alone["disagreement_ratio"] is alone["head_correlation_policy"] is None


def test_hopeless_leads_stay_finite():
    lead = np.array([[-1e4, 1e4]])
    with np.errstate(all="raise", under="ignore"):
        figures = held_out_quality(lead, np.zeros_like(lead), np.ones(2), RIGHT[:2])
    assert figures["nll"] == pytest.approx(5e3) and figures["brier"] == pytest.approx(0.5)
