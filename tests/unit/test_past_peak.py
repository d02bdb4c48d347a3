"""Fits held against a curve that never falls, and what is lost past the peak."""

import math

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from framework.analysis.frontier import FORMS, Points, fit_points
from framework.analysis.past_peak import fit_frontier, isotonic_error, losses, never_falls_as_well, slope_past
from tests.unit.known_curves import noisy_points, rng_of, with_gold


def test_gold_that_hardly_varies_for_its_size():
    points = noisy_points(rng_of("offset"), seeds=3, size=0.1)
    shifted = fit_frontier(with_gold(points, 1e4 + 1e-4 * points.gold), "online", [])
    plain = fit_frontier(points, "online", [])
    assert shifted.main.peak.d == pytest.approx(plain.main.peak.d, rel=1e-4)
    assert shifted.errors[-1].cv_rmse == pytest.approx(1e-4 * plain.errors[-1].cv_rmse, rel=1e-4)


def test_a_rising_fit_is_no_evidence_of_a_fall():
    d = np.tile(np.linspace(0, 3, 60), 3)
    rng = rng_of("rising")
    gold = FORMS["rl"].basis(d) @ np.array([1.0, 0.2]) + rng.normal(0, 0.001, len(d))
    frontier = fit_frontier(Points(d, gold, np.repeat(np.arange(3), 60), (0, 1, 2), np.zeros(3), 0), "online", [])
    assert frontier.main.cv_rmse < frontier.errors[-1].cv_rmse
    assert frontier.verdict.startswith("The fit itself never falls in this range")


def test_losses_by_hand():
    """A triangle of height 2 over 0 to 4, its top at 1: 2 is lost at the end, and the area under the fall is 3."""
    d = np.linspace(0, 4, 401)
    gold = np.stack([np.where(d <= 1, 2 * d, 2 - 2 * (d - 1) / 3), d])
    index, area = losses(d, gold)
    np.testing.assert_allclose(index, [2, 0], atol=1e-12)
    np.testing.assert_allclose(area, [3, 0], atol=1e-4)


def test_isotonic_by_its_library():
    """Cell sums give what scikit-learn's regression gives on the points, where each cell holds one value of d."""
    rng, d = rng_of("isotonic"), np.repeat(np.arange(41) / 10, 3)
    seed = np.tile(np.arange(3), 41)
    gold = np.sin(d) + rng.normal(0, 0.1, len(d))
    points = Points(d, gold, seed, (0, 1, 2), np.zeros(3), 0)
    fitted = IsotonicRegression(out_of_bounds="clip").fit(d, gold).predict(d)
    ours = isotonic_error(points)
    assert ours.rmse == pytest.approx(math.sqrt(np.square(gold - fitted).mean()))
    squares = 0.0
    for k in range(3):
        rest = seed != k
        model = IsotonicRegression(out_of_bounds="clip").fit(d[rest], gold[rest])
        squares += np.square(gold[~rest] - model.predict(d[~rest])).sum()
    assert ours.cv_rmse == pytest.approx(math.sqrt(squares / len(d)))


def test_isotonic_never_falls_and_is_as_good_on_a_rise():
    points = noisy_points(
        rng_of("rise"), truth={"r0": 0.0, "alpha": 1.0, "beta": 0.0}, form="rl", spread=0, size=0.1, memory=0
    )
    rising = isotonic_error(points)
    fit = fit_points(points, FORMS["rl"], True)
    assert rising.cv_rmse == pytest.approx(fit.cv_rmse, rel=0.05)
    hump = noisy_points(rng_of("hump"), budgets=(2, 8, 128), spread=0, size=0.2)
    assert not never_falls_as_well(fit_points(hump, FORMS["rl"], True), isotonic_error(hump))
    assert slope_past(points, 2.0).sign > 0 and slope_past(hump, 4.0).sign < 0
    assert slope_past(hump, 1e6).mean is None


def test_a_seed_that_hardly_passed_the_peak_has_no_say_in_its_fall():
    points = noisy_points(rng_of("short"), seeds=3, budgets=(2, 8, 128), spread=0, size=0.2)
    kept = (points.seed != 2) | (points.d < 4.3)
    short = Points(points.d[kept], points.gold[kept], points.seed[kept], points.seeds, points.starts, 0)
    slope = slope_past(short, 4.0)
    assert slope.num_seeds == 2 and slope.sign < 0
