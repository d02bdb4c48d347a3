"""Where gold peaks, and what the data can support."""

import math
import re

import numpy as np
import pytest

from framework.analysis.frontier import FORMS, Points, fit_points
from framework.analysis.past_peak import fit_frontier
from tests.unit.known_curves import TRUTH, noisy_points, rng_of, with_gold


@pytest.mark.slow
def test_few_peaks_are_found_where_gold_levels_off():
    """Gold that rises and stays up: a fitted hump has a clear peak all the same, which is not to be believed."""
    believed = fitted = 0
    for number in range(100):
        points = noisy_points(rng_of("level", number), spread=0.3)
        hump = TRUTH["r0"] + FORMS["rl"].basis(points.d) @ np.array([TRUTH["alpha"], TRUTH["beta"]])
        points = with_gold(points, points.gold - hump + 2 * (1 - np.exp(-points.d)))
        frontier = fit_frontier(points, "online", [])
        fitted += fit_points(points, FORMS["rl"], True).peak.supported
        believed += frontier.main.peak.supported
    assert fitted > 20, "the trap is not there"
    assert believed <= 5, believed


@pytest.mark.parametrize(
    "truth, reason",
    [
        ({"r0": 0.0, "alpha": 1.0, "beta": 0.2}, r"gold is still rising at the largest √KL seen \(3\.\d\)"),
        ({"r0": 0.0, "alpha": -1.0, "beta": 0.3}, r"gold falls from √KL 0.1\d on, and the slope below that, 5%"),
        ({"r0": 0.0, "alpha": -1.0, "beta": -1.0}, r"gold falls first and rises"),
    ],
)
def test_no_peak_in_this_range(truth, reason):
    points = noisy_points(rng_of("no peak"), truth=truth, budgets=(2, 8), size=0.02, spread=0)
    peak = fit_points(points, FORMS["rl"], True).peak
    assert not peak.supported and peak.d_interval is None
    assert peak.d is None or peak.d < 0.05  # the form's own, so near to 0 that slopes are not read there
    assert peak.reason.startswith("no peak in this range: ")
    assert re.search(reason, peak.reason)


def test_gold_that_falls_from_the_smallest_d_on():
    points = noisy_points(rng_of("falls"), truth={"r0": 0.0, "alpha": -1.0, "beta": 0.3}, size=0.02, spread=0)
    far = points.d > 1
    points = Points(points.d[far], points.gold[far], points.seed[far], points.seeds, points.starts, 0)
    peak = fit_points(points, FORMS["rl"], True).peak
    assert peak.d is None and "gold falls from the smallest √KL seen (1.0) on" in peak.reason


@pytest.mark.parametrize(
    ("form", "alpha", "beta", "low", "high"),
    [
        ("rl", 0.1, 1.0, 0.1, 10.0),
        ("rl", 0.5, 2.0, 0.05, 12.0),
        ("rl", 1.0, 0.5, 0.0, 4.0),
        ("bon", 0.2, 0.5, 0.0, 6.0),
        ("bon", 3.0, 0.4, 1.0, 8.0),
    ],
)
@pytest.mark.parametrize("intercept", [True, False])
def test_peaks_of_exact_data(form, alpha, beta, low, high, intercept):
    """To 1e-6 wherever they lie in the d seen, read or not."""
    d = np.tile(np.linspace(low, high, 50), 3)
    gold = 0.7 + FORMS[form].basis(d) @ np.array([alpha, beta])
    points = Points(d, gold, np.repeat(np.arange(3), 50), (0, 1, 2), np.full(3, 0.7), 0)
    fit = fit_points(points, FORMS[form], intercept)
    truth = alpha / (2 * beta) if form == "bon" else math.exp(alpha / beta - 1)
    assert fit.peak.d == pytest.approx(truth, abs=1e-6)
    assert fit.coefficients == pytest.approx({"r0": 0.7, "alpha": alpha, "beta": beta}, abs=1e-8)
    assert fit.peak.supported == (truth > 0.05 * high)


@pytest.mark.parametrize("level", [0.0, 0.1, 0.3, 0.7, 1.3, -7.3, 1e4])
def test_gold_that_does_not_vary(level):
    """Rounding is no fall, no gain and no error."""
    points = noisy_points(rng_of("constant"), seeds=3)
    gold = np.full(len(points.d), level)
    points = Points(points.d, gold, points.seed, points.seeds, np.full(3, level), 0)
    frontier = fit_frontier(points, "online", [])
    for fit in frontier.fits:
        assert fit.peak.reason == "no peak in this range: gold does not vary"
        assert fit.r_squared is None and fit.rmse == 0 and fit.cv_rmse == 0
    assert frontier.errors[-1].r_squared is None and frontier.errors[-1].rmse == 0
    assert "no evidence of over-optimisation" in frontier.verdict


def test_seeds_that_disagree_support_no_peak():
    points = noisy_points(rng_of("disagree"), seeds=3, spread=6.0, size=0.1)
    peak = fit_points(points, FORMS["rl"], True).peak
    assert not peak.supported and peak.d_interval is None
    assert peak.reason.startswith("no peak in this range: ") and "with 3 seeds" in peak.reason


def test_a_clear_peak():
    points = noisy_points(rng_of("clear"), seeds=5, budgets=(2, 8, 32), spread=0.2, size=0.1)
    frontier = fit_frontier(points, "online", [])
    peak, lost = frontier.main.peak, frontier.losses
    assert peak.supported and peak.reason.startswith("gold peaks at √KL 2.")
    assert peak.d_interval[0] < peak.d < peak.d_interval[1]
    assert peak.d == pytest.approx(math.e, rel=0.1)
    assert frontier.slope_past_peak.sign < 0
    assert lost.kl_nats_at_peak == pytest.approx(peak.d**2)
    assert lost.index_interval[0] > 0
    assert lost.index == pytest.approx(
        peak.gold - frontier.main.curve(np.array([frontier.main.d_range[1]]))[0], rel=1e-3
    )
