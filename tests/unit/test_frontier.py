"""Fits of gold against sqrt(KL): coefficients, their intervals and errors."""

import math

import numpy as np
import pytest
from scipy.optimize import curve_fit

from framework.analysis.frontier import DRAWS, FORMS, Points, fit_points, seed_solver
from framework.analysis.over_seeds import t_interval
from framework.analysis.past_peak import fit_frontier
from tests.unit.known_curves import TRUTH, noisy_points, rng_of

ALL_FORMS = sorted(FORMS)


def slope(form, d, alpha, beta, step=1e-6):
    """Of the curve, by a central difference."""
    return ((form.basis(np.array([d + step])) - form.basis(np.array([d - step]))) @ [alpha, beta])[0] / (2 * step)


@pytest.mark.parametrize("name", ALL_FORMS)
def test_zero_at_zero_and_flat_where_it_says(name):
    form = FORMS[name]
    np.testing.assert_array_equal(form.basis(np.zeros(1)), np.zeros((1, 2)))
    for d in (0.3, 1.0, 4.0):
        assert slope(form, d, form.ratio_at(d), 1.0) == pytest.approx(0, abs=1e-6)
        assert slope(form, d, form.ratio_at(d) + 0.1, 1.0) > 0 > slope(form, d, form.ratio_at(d) - 0.1, 1.0)
        assert form.flat_at(form.ratio_at(d)) == pytest.approx(d)
    assert FORMS["rl"].flat_at(1e6) == math.inf


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("name", ALL_FORMS)
def test_optimum_is_that_of_a_non_linear_search(name, intercept):
    form, points = FORMS[name], noisy_points(rng_of("scipy"), form="rl", steps=40)
    fit = fit_points(points, form, intercept)

    def curve(d, alpha, beta, r0=points.start):
        return r0 + form.basis(d) @ np.array([alpha, beta])

    start = [0.1, 0.01, 0.0] if intercept else [0.1, 0.01]
    found, _ = curve_fit(curve, points.d, points.gold, p0=start, xtol=1e-12, ftol=1e-12)
    ours = [fit.coefficients[key] for key in ("alpha", "beta", "r0")][: len(found)]
    np.testing.assert_allclose(ours, found, rtol=1e-5, atol=1e-9)
    residuals = points.gold - curve(points.d, *found)
    assert fit.rmse == pytest.approx(math.sqrt(np.square(residuals).mean()))
    assert fit.r_squared == pytest.approx(
        1 - np.square(residuals).sum() / np.square(points.gold - points.gold.mean()).sum()
    )
    np.testing.assert_allclose(fit.curve(points.d), curve(points.d, *found), rtol=1e-4, atol=1e-6)
    if not intercept:
        assert fit.coefficients["r0"] == points.start


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("form", ["bon", "rl"])
@pytest.mark.parametrize("size", [0.05, 0.2, 0.5])
def test_recovers_the_coefficients_within_five_percent(size, form, intercept):
    points = noisy_points(
        rng_of("recover", form), form=form, seeds=5, budgets=(4, 16, 64), steps=1000, size=size, spread=0, memory=0
    )
    fit = fit_points(points, FORMS[form], intercept)
    assert fit.coefficients["alpha"] == pytest.approx(TRUTH["alpha"], rel=0.05)
    assert fit.coefficients["beta"] == pytest.approx(TRUTH["beta"], rel=0.05)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("form", ["bon", "rl"])
def test_intervals_cover_the_truth(form, intercept):
    """200 sets of five seeds, each with a curve of its own and noise that remembers."""
    covered, claimed, wrong = [], 0, 0
    true_peak = FORMS[form].flat_at(TRUTH["alpha"] / TRUTH["beta"])
    for number in range(200):
        points = noisy_points(rng_of("cover", form, number), form=form)
        fit = fit_points(points, FORMS[form], intercept)
        covered.append([low <= TRUTH[key] <= high for key, (low, high) in fit.intervals.items()])
        if fit.peak.supported:
            claimed += 1
            wrong += not fit.peak.d_interval[0] <= true_peak <= fit.peak.d_interval[1]
    shares = np.mean(covered, axis=0)
    assert (shares >= 0.90).all() and (shares <= 0.99).all(), shares
    assert claimed > 60, claimed
    assert 1 - wrong / claimed >= 0.90, (wrong, claimed)


def test_interval_of_alike_seeds_is_students():
    """Seeds measured at the same d: the pooled fit is the mean of theirs, and so is its interval."""
    rng, d = rng_of("student"), np.tile(np.linspace(0, 6, 30), 5)
    seed = np.repeat(np.arange(5), 30)
    gold = np.concatenate([FORMS["rl"].basis(d[:30]) @ rng.normal([1, 0.4], 0.1) for _ in range(5)])
    points = Points(d, gold, seed, tuple(range(5)), np.zeros(5), 0)
    fit = fit_points(points, FORMS["rl"], True)
    own = [
        fit_points(Points(d[:30], gold[seed == k], seed[:30], (k,), np.zeros(1), 0), FORMS["rl"], True).coefficients[
            "alpha"
        ]
        for k in range(5)
    ]
    assert fit.coefficients["alpha"] == pytest.approx(np.mean(own))
    np.testing.assert_allclose(fit.intervals["alpha"], t_interval(own), rtol=0.05)


def test_samples_of_seeds_are_those_of_their_points():
    """Weighted sums give what a fit to the drawn seeds' points, one after the other, gives."""
    points = noisy_points(rng_of("sums"), seeds=3, steps=20)
    keep = np.concatenate([np.flatnonzero(points.seed == k) for k in (0, 0, 2)])
    drawn = Points(points.d[keep], points.gold[keep], points.seed[keep], points.seeds, points.starts[[0, 0, 2]], 0)
    for intercept in (True, False):
        fast = seed_solver(points, FORMS["rl"], intercept)(np.array([[2.0, 0.0, 1.0]]))[0]
        start = drawn.starts.mean()
        design = FORMS["rl"].basis(drawn.d)
        if intercept:
            slow = np.linalg.lstsq(np.column_stack([np.ones(len(keep)), design]), drawn.gold)[0]
        else:
            slow = np.append(start, np.linalg.lstsq(design, drawn.gold - start)[0])
        np.testing.assert_allclose(fast, slow, rtol=1e-8)


def test_same_points_same_figures():
    first, second = (fit_points(noisy_points(rng_of("same")), FORMS["rl"], True) for _ in range(2))
    assert first.intervals == second.intervals
    assert first.draws.shape == (DRAWS, 3)


def test_held_out_error():
    points = noisy_points(rng_of("held out"), seeds=3, steps=30)
    squares = []
    for k in range(3):
        rest = points.seed != k
        seed = np.unique(points.seed[rest], return_inverse=True)[1]
        others = Points(points.d[rest], points.gold[rest], seed, (0, 1), np.delete(points.starts, k), 0)
        fit = fit_points(others, FORMS["rl"], False)
        squares.append(np.square(points.gold[~rest] - fit.curve(points.d[~rest])))
    expected = math.sqrt(np.concatenate(squares).mean())
    assert fit_points(points, FORMS["rl"], False).cv_rmse == pytest.approx(expected)


def test_band_holds_the_curve_and_is_the_coefficients_at_zero():
    fit = fit_points(noisy_points(rng_of("band")), FORMS["rl"], True)
    d = np.linspace(0, 5, 20)
    low, high = fit.band(d)
    assert (low < fit.curve(d)).all() and (fit.curve(d) < high).all()
    np.testing.assert_allclose((low[0], high[0]), fit.intervals["r0"])


def test_one_seed_has_no_intervals():
    points = noisy_points(rng_of("one"), seeds=1, spread=0, size=0.02)
    frontier = fit_frontier(points, "online", [])
    fit = frontier.main
    assert set(fit.intervals.values()) == {None}
    assert fit.band(np.ones(1)) is None and fit.cv_rmse is None and fit.covariance is None
    assert not fit.peak.supported and "with one seed" in fit.peak.reason
    assert fit.peak.d == pytest.approx(math.e, rel=0.1)  # the estimate is there all the same
    assert "one seed" in frontier.verdict
    assert frontier.losses.index_interval is None and frontier.losses.index > 0


@pytest.mark.parametrize("width", [0.03, 0.06, 0.1])
def test_intervals_of_a_narrow_range_of_d(width):
    """d hardly varies, so the coefficients are all but free: intervals must say so."""
    covered = []
    for number in range(40):
        rng = rng_of("slit", number)
        d = 8 + rng.normal(0, width, 300)
        gold = FORMS["rl"].basis(d) @ np.array([2.0, 0.8]) + rng.normal(0, 0.05, 300)
        fit = fit_points(Points(d, gold, np.arange(300) % 5, tuple(range(5)), np.zeros(5), 0), FORMS["rl"], True)
        low, high = fit.intervals["alpha"]
        covered.append(low <= 2.0 <= high)
    assert np.mean(covered) >= 0.85, covered


def test_too_few_points():
    few = Points(np.array([1.0, 1.0, 2.0]), np.zeros(3), np.array([0, 1, 1]), (0, 1), np.array([0.0, np.nan]), 5)
    assert fit_points(few, FORMS["rl"], True) is None
    frontier = fit_frontier(few, "online", [])
    assert frontier.fits == [] and frontier.main is None and "too few values" in frontier.verdict


@pytest.mark.parametrize("count", [4, 31, 200, 800])
@pytest.mark.parametrize("name", ["rl", "bon"])
def test_too_few_values_of_d_for_any_number_of_points(name, count):
    """Two values of d do not tell three coefficients, nor one value two: rounding must not seem to."""
    for number in range(20):
        rng = rng_of("values", name, count, number)
        few = rng.uniform(0.5, 8, 2)
        for values, intercept in ((few, True), (few[:1], False)):
            d = values[np.arange(count) % len(values)]
            points = Points(d, rng.normal(0, 1, count), np.arange(count) % 2, (0, 1), np.zeros(2), 0)
            assert fit_points(points, FORMS[name], intercept) is None


def test_a_seed_without_the_spread_of_d_breaks_no_sample():
    """A seed measured at one d alone determines no curve by itself, though the others do."""
    points = noisy_points(rng_of("narrow"), seeds=3, steps=30)
    narrow = points.seed == 1
    d = np.where(narrow, 2.0, points.d)
    fit = fit_points(Points(d, points.gold, points.seed, points.seeds, points.starts, 0), FORMS["rl"], True)
    assert np.isfinite(fit.draws).all() and np.isfinite(list(fit.intervals.values())).all()
