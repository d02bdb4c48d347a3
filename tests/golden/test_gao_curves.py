"""The forms of arXiv 2210.10760 and their peaks against recorded figures of the closed forms."""

import numpy as np
import pytest

from framework.analysis.frontier import FORMS, Points, fit_points
from tests.golden.oracle import cases

CASES = cases("closed_gao_curves.json", "gao_curves")


def read(case):
    return np.array(case["inputs"]["d"]), np.array([case["params"]["alpha"], case["params"]["beta"]])


@pytest.mark.parametrize("name", ["bon", "rl"])
@pytest.mark.parametrize("case", CASES)
def test_values(case, name):
    d, coefficients = read(case)
    np.testing.assert_allclose(FORMS[name].basis(d) @ coefficients, case["outputs"][name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name, key, first", [("bon", "bon_slope", 0), ("rl", "rl_slope_for_d_above_0", 1)])
@pytest.mark.parametrize("case", CASES)
def test_slopes(case, name, key, first):
    """The sign that the peak is found by is that of the recorded slope; the slope itself is that of the values."""
    d, (alpha, beta) = read(case)
    form, slopes = FORMS[name], np.array(case["outputs"][key])
    signs = [np.sign(round(alpha - beta * form.ratio_at(each), 12)) for each in d[first:]]
    np.testing.assert_array_equal(signs, np.sign(slopes.round(12)))
    inner, step = d[first:] + (d[first:] == 0) * 1e-5, 1e-5
    numeric = (form.basis(inner + step) - form.basis(inner - step)) @ [alpha, beta] / (2 * step)
    np.testing.assert_allclose(numeric, slopes, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", ["bon", "rl"])
@pytest.mark.parametrize("case", CASES)
def test_peak_of_exact_data(case, name):
    """Fitted to points on the curve: the coefficients, and the peak to 1e-6 of its recorded place and height."""
    d, coefficients = read(case)
    peak, height = case["outputs"][f"{name}_peak_d"], case["outputs"][f"{name}_peak_value"]
    d = np.append(d, 2 * peak)  # the peak has to lie within the d seen
    seed = np.repeat([0, 1], [4, len(d) - 4])
    gold = FORMS[name].basis(d) @ coefficients
    points = Points(d, gold, seed, (0, 1), np.zeros(2), 0)
    for intercept in (True, False):
        fit = fit_points(points, FORMS[name], intercept)
        np.testing.assert_allclose([fit.coefficients["alpha"], fit.coefficients["beta"]], coefficients, rtol=1e-9)
        assert fit.peak.d == pytest.approx(peak, rel=1e-6)
        assert fit.peak.gold == pytest.approx(height, rel=1e-6)
        assert fit.peak.kl_nats == pytest.approx(peak**2, rel=2e-6)
