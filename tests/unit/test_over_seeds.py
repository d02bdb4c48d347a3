"""Means over seeds: intervals, paired differences, shares inside 0 and 1, many comparisons, and bands along an axis."""

import math

import numpy as np
import pytest
from scipy import stats

from framework.analysis.over_seeds import (
    Estimate,
    band_by_axis,
    band_by_step,
    holm,
    paired_difference,
    share_of,
    share_over_seeds,
    t_interval,
    wilson,
)
from framework.seeding import numpy_generator


def test_the_t_interval_agrees_with_scipy():
    values = [1.0, 2.0, 4.0, 4.5]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert t_interval(values) == pytest.approx(expected)
    assert t_interval([1.0]) is None


@pytest.mark.parametrize(("interval", "sign"), [((0.1, 0.2), 1), ((-0.2, -0.1), -1), ((-0.1, 0.1), 0), (None, 0)])
def test_the_sign_of_an_estimate(interval, sign):
    assert Estimate(0.0, interval, 2).sign == sign


def test_what_is_not_known_is_left_out():
    assert Estimate.of([1.0, None, 3.0]) == Estimate(2.0, t_interval([1.0, 3.0]), 2)
    assert Estimate.of([None]) == Estimate(None, None, 0)


def test_differences_are_paired_by_seed():
    own, rival = {0: 2.0, 1: 3.0, 2: 4.5, 9: 100.0}, {0: 1.0, 1: 2.5, 2: 3.0, 3: None}
    found = paired_difference(own, rival)
    assert (found.mean, found.num_seeds) == (1.0, 3)
    assert found.interval == pytest.approx(t_interval([1.0, 0.5, 1.5]))
    assert found.p_value == pytest.approx(stats.ttest_1samp([1.0, 0.5, 1.5], 0).pvalue)
    assert paired_difference(own, {7: 1.0}) == Estimate(None, None, 0)
    alone = paired_difference({0: 2.0}, {0: 1.5})
    assert (alone.mean, alone.interval, alone.p_value) == (0.5, None, None)


def test_wilson_by_hand():
    # z^2 = 3.8415: (0.9 + 0.19207) / 1.38415 -+ 1.95996 / 1.38415 * sqrt(0.009 + 0.096036)
    assert wilson(0.9, 10) == pytest.approx((0.59585, 0.98212), abs=1e-5)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert wilson(1.0, 10) == pytest.approx((0.72247, 1.0), abs=1e-5)
    low, high = wilson(0.5, 10_000)
    assert high - low == pytest.approx(2 * 1.96 * 0.005, rel=1e-3)
    assert share_of(9, 10).interval == wilson(0.9, 10) and share_of(0, 0).mean is None


@pytest.mark.parametrize("rates", [[0.9, 0.97, 0.99], [1.0, 1.0], [0.0, 0.01, 0.2], [0.0, 1.0], [0.6, 0.6]])
def test_a_share_stays_inside_zero_and_one(rates):
    found = share_over_seeds(rates)
    low, high = found.interval
    assert 0 <= low <= found.mean <= high <= 1
    assert share_over_seeds(rates[:1]).interval is None


def test_seeds_that_all_win_are_as_many_draws():
    assert share_over_seeds([1.0] * 5).interval == pytest.approx(wilson(1.0, 5))


def test_shares_of_few_seeds_are_covered_about_as_stated():
    """Seeds scatter about 0.9; the test of one half holds its level where there is nothing to find."""
    random = numpy_generator("tests", "shares")
    for mean, seeds in ((0.9, 3), (0.9, 5), (0.5, 3)):
        found = [share_over_seeds(random.beta(20 * mean, 20 * (1 - mean), seeds).tolist()) for _ in range(600)]
        assert np.mean([e.interval[0] <= mean <= e.interval[1] for e in found]) > 0.92
    assert np.mean([estimate.p_value <= 0.05 for estimate in found]) < 0.08


def test_holm_by_hand():
    """0.01 against 0.05 / 4, 0.015 against 0.05 / 3, then 0.03 fails against 0.05 / 2, and so does what follows."""
    assert holm([0.03, 0.01, None, 0.04, 0.015]) == [False, True, False, False, True]
    assert holm([]) == [] and holm([0.05]) == [True]


def test_holm_marks_something_by_chance_as_rarely_as_stated():
    random = numpy_generator("tests", "holm")
    tests = stats.ttest_1samp(random.standard_normal((1500, 6, 4)), 0, axis=2).pvalue
    assert np.mean([any(holm(row.tolist())) for row in tests]) < 0.07
    assert np.mean((tests < 0.05).any(axis=1)) > 0.2


def test_a_mean_over_seeds_keeps_only_points_that_every_seed_has():
    steps = np.arange(3.0)
    band = band_by_step([steps, steps], [np.array([1.0, 2.0, math.nan]), np.array([3.0, 6.0, 7.0])])
    assert band.axis.tolist() == [0, 1]
    assert band.mean.tolist() == [2, 4]
    assert (band.low[1], band.high[1]) == pytest.approx(t_interval([2.0, 6.0]))
    assert np.isnan(band_by_step([steps], [steps]).low).all()


def test_seeds_are_matched_by_step():
    band = band_by_step([np.array([0.0, 1, 2]), np.array([0.0, 2])], [np.array([1.0, 9, 3]), np.array([3.0, 5])])
    assert band.axis.tolist() == [0, 2]
    assert band.mean.tolist() == [2, 4]


def test_on_the_kl_axis_seeds_meet_at_equal_kl_not_at_equal_step():
    fast, slow = np.linspace(0, 4, 50), np.linspace(0, 2, 200)
    band = band_by_axis([fast, slow], [fast * 10, slow * 10])
    assert band.axis.max() <= 2.1
    assert band.mean == pytest.approx(band.axis * 10)
    assert band.high == pytest.approx(band.low)
