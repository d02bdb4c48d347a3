"""Fits of gold against sqrt(KL): coefficients, intervals, peaks and what the data can support."""

import json
import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.optimize import curve_fit
from sklearn.isotonic import IsotonicRegression

from framework.analysis.curves import t_interval
from framework.analysis.forms import FORMS
from framework.analysis.frontier import DRAWS, Points, SeedSums, fit_points
from framework.analysis.goodness import isotonic_goodness, never_falls_as_well, slope_past
from framework.analysis.over_optimisation import losses
from framework.analysis.sweep_analysis import analyse_sweep, fit_frontier
from framework.analysis.sweep_table import SweepTable, read_table
from framework.seeding import numpy_generator
from tests.unit.known_curves import TRUTH, known_table, noisy_points

ALL_FORMS = sorted(FORMS)


def rng_of(*parts):
    return numpy_generator("tests", *parts)


def with_gold(points, gold):
    return Points(points.d, gold, points.seed, points.seeds, points.starts, points.num_dropped)


def slope(form, d, alpha, beta, step=1e-6):
    """Of the curve, by a central difference."""
    return ((form.basis(np.array([d + step])) - form.basis(np.array([d - step]))) @ [alpha, beta])[0] / (
        2 * step
    )


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
        rng_of("recover", form),
        form=form,
        seeds=5,
        budgets=(4, 16, 64),
        steps=1000,
        size=size,
        spread=0,
        memory=0,
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


@pytest.mark.slow
def test_few_peaks_are_found_where_gold_levels_off():
    """Gold that rises and stays up: a fitted hump has a clear peak all the same, which is not to be believed."""
    believed = fitted = 0
    for number in range(100):
        points = noisy_points(rng_of("level", number), spread=0.3)
        hump = TRUTH["r0"] + FORMS["rl"].basis(points.d) @ np.array([TRUTH["alpha"], TRUTH["beta"]])
        points = with_gold(points, points.gold - hump + 2 * (1 - np.exp(-points.d)))
        frontier = fit_frontier(points, "rl", [])
        fitted += fit_points(points, FORMS["rl"], True).peak.supported
        believed += frontier.main.peak.supported
    assert fitted > 20, "the trap is not there"
    assert believed <= 5, believed


def test_interval_of_alike_seeds_is_students():
    """Seeds measured at the same d: the pooled fit is the mean of theirs, and so is its interval."""
    rng, d = rng_of("student"), np.tile(np.linspace(0, 6, 30), 5)
    seed = np.repeat(np.arange(5), 30)
    gold = np.concatenate([FORMS["rl"].basis(d[:30]) @ rng.normal([1, 0.4], 0.1) for _ in range(5)])
    points = Points(d, gold, seed, tuple(range(5)), np.zeros(5), 0)
    fit = fit_points(points, FORMS["rl"], True)
    own = [
        fit_points(
            Points(d[:30], gold[seed == k], seed[:30], (k,), np.zeros(1), 0), FORMS["rl"], True
        ).coefficients["alpha"]
        for k in range(5)
    ]
    assert fit.coefficients["alpha"] == pytest.approx(np.mean(own))
    np.testing.assert_allclose(fit.intervals["alpha"], t_interval(own), rtol=0.05)


def test_samples_of_seeds_are_those_of_their_points():
    """Weighted sums give what a fit to the drawn seeds' points, one after the other, gives."""
    points = noisy_points(rng_of("sums"), seeds=3, steps=20)
    keep = np.concatenate([np.flatnonzero(points.seed == k) for k in (0, 0, 2)])
    drawn = Points(
        points.d[keep], points.gold[keep], points.seed[keep], points.seeds, points.starts[[0, 0, 2]], 0
    )
    for intercept in (True, False):
        fast = SeedSums.of(points, FORMS["rl"], intercept).solve(np.array([[2.0, 0.0, 1.0]]))[0]
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
    frontier = fit_frontier(points, "rl", [])
    fit = frontier.main
    assert set(fit.intervals.values()) == {None}
    assert fit.band(np.ones(1)) is None and fit.cv_rmse is None and fit.covariance is None
    assert not fit.peak.supported and "with one seed" in fit.peak.reason
    assert fit.peak.d == pytest.approx(math.e, rel=0.1)  # the estimate is there all the same
    assert "one seed" in frontier.verdict
    assert frontier.losses.index_interval is None and frontier.losses.index > 0


@pytest.mark.parametrize(
    "truth, reason",
    [
        ({"r0": 0.0, "alpha": 1.0, "beta": 0.2}, r"gold is still rising at the largest √KL seen \(3\.\d\)"),
        (
            {"r0": 0.0, "alpha": -1.0, "beta": 0.3},
            r"gold falls from √KL 0.1\d on, and the slope below that, 5%",
        ),
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
    frontier = fit_frontier(points, "rl", [])
    for fit in frontier.fits:
        assert fit.peak.reason == "no peak in this range: gold does not vary"
        assert fit.r_squared is None and fit.rmse == 0 and fit.cv_rmse == 0
    assert frontier.goodness[-1].r_squared is None and frontier.goodness[-1].rmse == 0
    assert "no evidence of over-optimisation" in frontier.verdict


def test_gold_that_hardly_varies_for_its_size():
    points = noisy_points(rng_of("offset"), seeds=3, size=0.1)
    shifted = fit_frontier(with_gold(points, 1e4 + 1e-4 * points.gold), "rl", [])
    plain = fit_frontier(points, "rl", [])
    assert shifted.main.peak.d == pytest.approx(plain.main.peak.d, rel=1e-4)
    assert shifted.goodness[-1].cv_rmse == pytest.approx(1e-4 * plain.goodness[-1].cv_rmse, rel=1e-4)


def test_a_rising_fit_is_no_evidence_of_a_fall():
    d = np.tile(np.linspace(0, 3, 60), 3)
    rng = rng_of("rising")
    gold = FORMS["rl"].basis(d) @ np.array([1.0, 0.2]) + rng.normal(0, 0.001, len(d))
    frontier = fit_frontier(Points(d, gold, np.repeat(np.arange(3), 60), (0, 1, 2), np.zeros(3), 0), "rl", [])
    assert frontier.main.cv_rmse < frontier.goodness[-1].cv_rmse
    assert frontier.verdict.startswith("The fit itself never falls in this range")


@pytest.mark.parametrize("width", [0.03, 0.06, 0.1])
def test_intervals_of_a_narrow_range_of_d(width):
    """d hardly varies, so the coefficients are all but free: intervals must say so."""
    covered = []
    for number in range(40):
        rng = rng_of("slit", number)
        d = 8 + rng.normal(0, width, 300)
        gold = FORMS["rl"].basis(d) @ np.array([2.0, 0.8]) + rng.normal(0, 0.05, 300)
        fit = fit_points(
            Points(d, gold, np.arange(300) % 5, tuple(range(5)), np.zeros(5), 0), FORMS["rl"], True
        )
        low, high = fit.intervals["alpha"]
        covered.append(low <= 2.0 <= high)
    assert np.mean(covered) >= 0.85, covered


def test_seeds_that_disagree_support_no_peak():
    points = noisy_points(rng_of("disagree"), seeds=3, spread=6.0, size=0.1)
    peak = fit_points(points, FORMS["rl"], True).peak
    assert not peak.supported and peak.d_interval is None
    assert peak.reason.startswith("no peak in this range: ") and "with 3 seeds" in peak.reason


def test_a_clear_peak():
    points = noisy_points(rng_of("clear"), seeds=5, budgets=(2, 8, 32), spread=0.2, size=0.1)
    frontier = fit_frontier(points, "rl", [])
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
    ours = isotonic_goodness(points)
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
    rising = isotonic_goodness(points)
    fit = fit_points(points, FORMS["rl"], True)
    assert rising.cv_rmse == pytest.approx(fit.cv_rmse, rel=0.05)
    hump = noisy_points(rng_of("hump"), budgets=(2, 8, 128), spread=0, size=0.2)
    assert not never_falls_as_well(fit_points(hump, FORMS["rl"], True), isotonic_goodness(hump))
    assert slope_past(points, 2.0).sign > 0 and slope_past(hump, 4.0).sign < 0
    assert slope_past(hump, 1e6).mean is None


def test_a_seed_that_hardly_passed_the_peak_has_no_say_in_its_fall():
    points = noisy_points(rng_of("short"), seeds=3, budgets=(2, 8, 128), spread=0, size=0.2)
    kept = (points.seed != 2) | (points.d < 4.3)
    short = Points(points.d[kept], points.gold[kept], points.seed[kept], points.seeds, points.starts, 0)
    slope = slope_past(short, 4.0)
    assert slope.num_seeds == 2 and slope.sign < 0


def test_too_few_points():
    few = Points(
        np.array([1.0, 1.0, 2.0]), np.zeros(3), np.array([0, 1, 1]), (0, 1), np.array([0.0, np.nan]), 5
    )
    assert fit_points(few, FORMS["rl"], True) is None
    frontier = fit_frontier(few, "rl", [])
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


@pytest.fixture(scope="module")
def table():
    return known_table(rng_of("table"))


@pytest.mark.parametrize(("steps", "climb"), [(30, 5), (100, 20)])
def test_exact_tables_give_the_truth(steps, climb):
    """Gold belongs to the KL of its own step: smoothed, the climb would bend the curve."""
    parts = []
    for seed in range(3):
        for budget in (4.0, 16.0, 64.0):
            kl = budget * (1 - np.exp(-np.arange(steps) / climb))
            gold = TRUTH["r0"] + FORMS["rl"].basis(np.sqrt(kl)) @ np.array([TRUTH["alpha"], TRUTH["beta"]])
            names = {"trial": f"b{budget:g}", "method": "m", "budget": budget, "seed": seed}
            rows = {name: [value] * steps for name, value in names.items()}
            parts.append(pa.table(rows | {"step": np.arange(steps), "kl_nats": kl, "gold": gold}))
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(parts), buffer)
    fits = analyse_sweep(read_table(pa.BufferReader(buffer.getvalue()))).methods["m"].frontiers["rl"].fits
    for fit in fits[:2]:
        assert fit.coefficients == pytest.approx(TRUTH, abs=1e-8)
        assert fit.peak.supported and fit.peak.d == pytest.approx(math.e, abs=1e-6)


def test_analysis_of_a_table(table):
    analysis = analyse_sweep(table)
    assert list(analysis.methods) == ["single", "uwo"]
    single, uwo = (analysis.methods[name] for name in ("single", "uwo"))
    assert [(fit.form, fit.intercept) for fit in single.frontiers["rl"].fits] == [
        ("rl", True),
        ("rl", False),
        ("quadratic", True),
    ]
    assert single.frontiers["rl"].main.peak.supported
    assert single.frontiers["rl"].main.peak.d < uwo.frontiers["rl"].main.peak.d
    assert single.statuses == {"finished": 12}
    assert [row.curve for row in single.frontiers["rl"].goodness] == ["rl", "rl", "quadratic", "isotonic"]
    assert single.frontiers["rl"].losses.gap_at_end.num_seeds == 3
    assert single.advice.budget in (4.0, 16.0)


def test_json_has_every_figure_and_no_nan(table):
    analysis = analyse_sweep(table)
    tree = json.loads(json.dumps(analysis.to_json(), allow_nan=False))
    fit = tree["methods"]["single"]["frontiers"]["rl"]["fits"][0]
    assert fit["peak"]["d"] == analysis.methods["single"].frontiers["rl"].main.peak.d
    assert set(fit["intervals"]) == {"r0", "alpha", "beta"}
    assert "draws" not in fit and "points" not in tree["methods"]["single"]["frontiers"]["rl"]
    assert tree["methods"]["single"]["budgets"][0]["kl_nats"]["num_seeds"] == 3
    assert json.dumps(tree) == json.dumps(json.loads(json.dumps(analyse_sweep(table).to_json())))


def replaced(table, name, values):
    return SweepTable(
        table.data.set_column(table.data.column_names.index(name), name, pa.array(values)), table.settings
    )


def test_rows_without_gold_or_kl_are_dropped_and_counted(table):
    gold, kl = table.column("gold"), table.column("kl_nats")
    whole = analyse_sweep(table).methods["single"].frontiers["rl"].main
    gold[5:25], kl[30], kl[2000] = np.nan, np.nan, np.inf
    analysis = analyse_sweep(replaced(replaced(table, "gold", gold), "kl_nats", kl))
    assert analysis.to_json()["dropped"] == {"total": 22, "methods": {"single": {"rl": 21}, "uwo": {"rl": 1}}}
    fit = analysis.methods["single"].frontiers["rl"].main
    assert (fit.num_points, fit.num_dropped) == (1200 - 21, 21)
    assert fit.coefficients["alpha"] == pytest.approx(whole.coefficients["alpha"], rel=0.1)


def test_a_method_without_gold(table):
    """One method has no gold at all: it is said, and the other is analysed as ever."""
    is_single = np.array(table.data["method"].to_pylist()) == "single"
    analysis = analyse_sweep(replaced(table, "gold", np.where(is_single, np.nan, table.column("gold"))))
    frontier = analysis.methods["single"].frontiers["rl"]
    assert frontier.fits == [] and frontier.losses is None
    assert frontier.verdict == "Nothing can be fitted: no row has both gold and KL."
    assert analysis.methods["single"].advice is None
    assert analysis.methods["single"].budgets[0].kl_nats.mean is not None
    assert analysis.methods["uwo"].frontiers["rl"].main is not None
    json.dumps(analysis.to_json(), allow_nan=False)


def test_best_of_n_beside_rl(table):
    """The rows of best-of-n are fitted with their own form; gold at n = 1 is the start."""
    n = 2 ** np.arange(12)
    kl = np.log(n) - (n - 1) / n
    d = np.sqrt(kl)
    parts = [table.data]
    for seed in range(3):
        gold = 0.5 + FORMS["bon"].basis(d) @ np.array([1.0, 0.3 + 0.01 * seed])
        rows = {
            "trial": ["pool"] * 12,
            "method": ["single"] * 12,
            "optimiser": ["best_of_n"] * 12,
            "seed": [seed] * 12,
        }
        part = pa.table({**rows, "status": ["finished"] * 12, "n": n, "kl_nats": kl, "gold": gold, "gap": d})
        parts.append(part)
    both = SweepTable(pa.concat_tables(parts, promote_options="default"), table.settings)
    frontier = analyse_sweep(both).methods["single"].frontiers["best_of_n"]
    assert frontier.points.start == pytest.approx(0.5)
    assert frontier.main.form == "bon"
    assert frontier.main.coefficients["beta"] == pytest.approx(0.31)
    assert frontier.main.peak.supported and frontier.main.peak.d == pytest.approx(1 / 0.62, rel=1e-3)
    assert frontier.losses.gap_at_end.mean == pytest.approx(d[-1])
