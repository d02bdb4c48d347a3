"""What is read off a curve: start, peak, end and sqrt(KL), and by how much a peak is overstated."""

import math

import numpy as np
import pytest

from framework.measure import HELD, end_of, moving_mean, outcome_of, peak_of, sqrt_kl, start_of
from framework.seeding import numpy_generator


class Rows:
    """A curve of these columns."""

    def __init__(self, axis="step", budget=None, position=None, **columns):
        self.axis, self.budget = axis, budget
        self.columns = {name: np.array(values, dtype=float) for name, values in columns.items()}
        self.count = len(next(iter(self.columns.values())))
        self.position = np.arange(self.count, dtype=float) if position is None else np.array(position)

    def series(self, name):
        return self.columns.get(name, np.full(self.count, math.nan))


NAN = math.nan


# Start, end, sqrt(KL)


def test_the_start_is_the_first_value_that_was_measured():
    assert start_of(np.array([NAN, 2.0, 3.0])) == 2.0
    assert start_of(np.array([NAN])) is start_of(np.array([])) is None


def test_the_end_is_the_mean_over_the_last_fifth():
    """Eleven rows: the last three."""
    assert end_of(np.array([0.0] * 8 + [4.0, 4.2, 4.4])) == pytest.approx(4.2)
    assert end_of(np.array([0.0] * 8 + [4.0, NAN, 5.0])) == 4.5
    assert end_of(np.array([1.0, 2.0, 4.0]), axis="epoch") == 4.0


def test_an_end_that_was_measured_seldom_is_the_last_value_of_the_second_half():
    assert end_of(np.array([0.0, NAN, NAN, 3.0, NAN, 7.0, *[NAN] * 4])) == 7.0
    assert end_of(np.array([0.0, NAN, NAN, NAN, 7.0, *[NAN] * 5])) is None
    assert end_of(np.array([0.0, *[NAN] * 7, 2.0, NAN])) == 2.0


def test_the_end_of_best_of_n_is_the_largest_n():
    assert end_of(np.arange(20.0), axis="n") == 19.0


def test_a_negative_kl_estimate_is_zero_and_each_row_is_read_by_itself():
    np.testing.assert_array_equal(sqrt_kl(np.array([-0.3, 4.0, NAN, 9.0])), [0.0, 2.0, NAN, 3.0])


# The moving mean, for drawing


def test_the_moving_mean_is_centred_and_truncated():
    smooth = moving_mean(np.arange(10.0) ** 2)
    assert smooth[0] == pytest.approx((0 + 1 + 4) / 3)
    assert smooth[4] == pytest.approx((4 + 9 + 16 + 25 + 36) / 5)
    assert smooth[9] == pytest.approx((49 + 64 + 81) / 3)


def test_the_window_counts_measurements_and_shrinks_in_short_runs():
    sparse = np.full(100, NAN)
    sparse[::10] = np.arange(10.0) ** 2
    smooth = moving_mean(sparse)
    assert smooth[40] == pytest.approx(18.0)
    assert np.isfinite(smooth).sum() == 10
    assert moving_mean(np.array([0.0, 3.0, 9.0])).tolist() == [0.0, 3.0, 9.0]
    assert moving_mean(np.array([0.0, 3.0, 9.0, 0, 0, 0]))[1] == pytest.approx(4.0)


# The peak


def truth(kind, steps, gain):
    """A curve without noise whose highest point is `gain`."""
    x = np.arange(steps) / (steps - 1)
    return (
        gain
        * {
            "flat": np.zeros(steps),
            "hump": np.where(x < 0.4, 1 - ((x - 0.4) / 0.4) ** 2, 1 - 0.8 * ((x - 0.4) / 0.6) ** 2),
            "early": np.where(x < 0.08, 1 - ((x - 0.08) / 0.08) ** 2, 1 - 2 * np.minimum((x - 0.08) / 0.3, 1) ** 2),
            "plateau": np.minimum(1, np.minimum(x / 0.3, 0.3 + 0.7 * (1 - x) / 0.3)),
            "levels": (1 - np.exp(-6 * x)) / (1 - np.exp(-6)),
            "rises": x,
        }[kind]
    )


def simulated(kind, steps, gain, memory, runs, error=0.2):
    """Outcomes of runs of this curve, and the highest value of each one's moving mean."""
    random = numpy_generator("tests", "peaks", kind, steps, f"{gain} {memory}")
    noise = random.standard_normal((runs, steps))
    for step in range(1, steps):
        noise[:, step] = memory * noise[:, step - 1] + math.sqrt(1 - memory**2) * noise[:, step]
    golds = truth(kind, steps, gain) + error * noise
    outcomes = [outcome_of(Rows(gold=gold, gold_se=np.full(steps, error))) for gold in golds]
    return outcomes, np.array([moving_mean(gold).max() for gold in golds])


def share(outcomes, name):
    return np.mean([getattr(outcome, name) for outcome in outcomes])


@pytest.mark.parametrize("steps", [60, 200])
@pytest.mark.parametrize(("kind", "gain"), [("flat", 0.0), ("hump", 1.0), ("plateau", 0.6), ("levels", 1.0)])
def test_a_peak_is_not_overstated(kind, gain, steps):
    """In standard errors of a batch: within a quarter, where the maximum of the moving mean is off by a half to more
    than one. Below rather than above: where the halves do not quite find the peak, they read beside it."""
    outcomes, highest = simulated(kind, steps, gain, 0.0, runs=120)
    bias = np.mean([outcome.gold_peak for outcome in outcomes]) - truth(kind, steps, gain).max()
    assert -0.06 < bias < 0.025
    assert highest.mean() - truth(kind, steps, gain).max() > 0.08
    spread = np.std([outcome.gold_peak for outcome in outcomes])
    assert 0.9 < spread / np.mean([outcome.gold_peak_se for outcome in outcomes]) < 1.4


def test_a_hump_that_is_over_soon_is_seen():
    """As in the embedded world without a budget: up and down again within a fifth of the run. Smoothing over a share of
    the run would lose it."""
    outcomes, _ = simulated("early", 200, 0.6, 0.0, runs=120, error=0.12)
    assert -0.06 < np.mean([outcome.gold_peak for outcome in outcomes]) - 0.6 < 0.025
    assert share(outcomes, "turned_over") > 0.95
    assert np.median([outcome.gold_peak_at for outcome in outcomes]) == pytest.approx(16, abs=4)


@pytest.mark.parametrize(("memory", "most"), [(0.0, 0.06), (0.2, 0.09)])
def test_gold_that_stands_still_has_gained_as_rarely_as_stated(memory, most):
    outcomes, highest = simulated("flat", 120, 0.0, memory, runs=250)
    assert share(outcomes, "gained") <= most and share(outcomes, "turned_over") <= 0.03
    start = np.array([outcome.gold_start for outcome in outcomes])
    assert np.mean(highest - start > 2 * 0.2 * math.sqrt(1 + 1 / 5)) > 0.12, "the trap is not there"


@pytest.mark.parametrize(("memory", "most"), [(0.0, 0.06), (0.2, 0.14)])
def test_gold_that_levels_off_or_still_rises_has_not_turned_over(memory, most):
    assert share(simulated("levels", 120, 1.0, memory, runs=150)[0], "turned_over") <= most
    rising = simulated("rises", 200, 0.6, memory, runs=100)[0]
    assert share(rising, "turned_over") <= 0.02 and share(rising, "gained") > 0.6


def test_gold_that_turns_is_seen_to():
    outcomes, _ = simulated("hump", 120, 1.0, 0.2, runs=60)
    assert share(outcomes, "turned_over") > 0.97
    assert np.median([outcome.gold_peak_at for outcome in outcomes]) == pytest.approx(48, abs=6)


@pytest.mark.parametrize("count", [2, 4, 9])
def test_a_few_measurements_have_a_peak_without_its_luck(count):
    """Their maximum would be 0.1 to 0.3 too high, and a gain would be seen in up to a ninth of flat runs."""
    flat, _ = simulated("flat", count, 0.0, 0.0, runs=250)
    assert abs(np.mean([outcome.gold_peak for outcome in flat])) < 0.05
    assert share(flat, "gained") <= 0.035
    clear, _ = simulated("hump", count, 3.0, 0.0, runs=30)
    if count > 2:
        assert share(clear, "turned_over") > 0.9
        assert np.mean([outcome.gold_peak for outcome in clear]) == pytest.approx(
            truth("hump", count, 3.0).max(), abs=0.15
        )


def test_gold_that_was_measured_now_and_then_peaks_where_it_was_measured():
    gold, error = np.full(100, NAN), np.full(100, NAN)
    gold[[0, 30, 60, 99]], error[[0, 30, 60, 99]] = [0.0, 2.0, 1.0, 0.5], 0.1
    outcome = outcome_of(Rows(gold=gold, gold_se=error, kl_nats=np.arange(100.0)))
    assert (outcome.gold_peak_at, outcome.kl_nats_at_gold_peak) == (30.0, 30.0)
    assert outcome.gold_peak == pytest.approx(2.0, abs=0.02) and outcome.turned_over
    assert outcome.share_lost == pytest.approx(0.75, abs=0.02)


def test_exact_gold_is_read_as_it_is():
    gold = truth("hump", 101, 1.0)
    peak = peak_of(gold, np.zeros(101))
    assert peak.row == pytest.approx(40, abs=4)  # smoothed, towards the flatter side
    assert peak.value == pytest.approx(1.0, abs=0.02) and peak.error == 0.0


@pytest.mark.parametrize("count", [5, 50])
def test_without_standard_errors_nothing_is_clear(count):
    gold = 100 * truth("hump", count, 1.0)
    outcome = outcome_of(Rows(gold=gold))
    assert outcome.gold_peak_se is outcome.share_lost is None
    assert not outcome.gained and not outcome.turned_over


def test_nothing_measured_has_no_peak():
    assert peak_of(np.full(20, NAN), np.full(20, NAN)) is None


# Outcomes


def test_an_outcome_by_hand():
    rows = Rows(
        budget=4.0,
        proxy=[0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        kl_nats=[0.0, 1, 2, 3, 4, 4, 4, 4, 4.2, 4.4],
        gap=[0.0] * 8 + [1.0, 3.0],
        kl_coef=[0.1] * 10,
        disagreement=[0.2] * 5 + [0.4] * 5,
    )
    outcome = outcome_of(rows)
    assert (outcome.steps, outcome.proxy_start, outcome.proxy_end) == (10, 0.0, 8.5)
    assert outcome.kl_nats_end == pytest.approx(4.3)
    assert outcome.budget_ratio == pytest.approx(4.3 / 4) and outcome.budget_held
    assert (outcome.gap_end, outcome.disagreement_start, outcome.disagreement_end) == (2.0, 0.2, 0.4)
    assert outcome.gold_start is outcome.gold_peak is outcome.gold_end is outcome.gold_end_se is None
    assert outcome.head_correlation_start is None and not outcome.gained
    assert outcome.to_json()["turned_over"] is False


@pytest.mark.parametrize(("kl", "held"), [(4 * (1 + 0.99 * HELD), True), (4.5, False), (3.5, False)])
def test_a_budget_is_held_within_a_tenth(kl, held):
    assert outcome_of(Rows(budget=4.0, kl_nats=[kl] * 5)).budget_held is held
    assert outcome_of(Rows(kl_nats=[kl] * 5)).budget_held is None


def test_the_disagreement_of_one_head_is_none():
    assert outcome_of(Rows(disagreement=[0.0] * 5)).disagreement_end is None


def test_errors_of_start_and_end_are_of_the_rows_they_are_read_off():
    outcome = outcome_of(Rows(gold=[1.0] * 20, gold_se=[0.3] * 19 + [0.4]))
    assert outcome.gold_start_se == 0.3
    assert outcome.gold_end_se == pytest.approx(math.sqrt(3 * 0.09 + 0.16) / 4)


def test_best_of_n_is_read_as_it_is():
    """Its values share one pool's noise, and cannot be dealt to halves."""
    rows = Rows(axis="n", position=[1.0, 2, 4, 8], gold=[0.0, 2.0, 1.5, 1.0], gold_se=[0.1] * 4, kl_nats=[0, 1, 2, 3])
    outcome = outcome_of(rows)
    assert (outcome.gold_peak, outcome.gold_peak_at, outcome.kl_nats_at_gold_peak) == (2.0, 2.0, 1.0)
    assert (outcome.gold_end, outcome.share_lost) == (1.0, 0.5)
