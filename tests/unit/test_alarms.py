"""Alarms without gold: their rate of false alarms, what they catch, and how leads over gold's turn are counted."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.analysis.alarms import BASELINE, CONTROL, SIGNALS, alarm_leads, first_alarm, warnings_of


def noise(runs, steps, correlation=0.0, seed=0):
    """Standard normal values whose neighbours correlate."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((runs, steps))
    for step in range(1, steps):
        values[:, step] = correlation * values[:, step - 1] + (1 - correlation**2) ** 0.5 * values[:, step]
    return values


def alarmed(runs, direction="up"):
    return [first_alarm(run, direction) for run in runs]


# The rule


@pytest.mark.parametrize(("correlation", "low", "high"), [(0.0, 0.005, 0.03), (0.2, 0.03, 0.07), (0.3, 0.05, 0.11)])
def test_a_signal_without_drift_is_alarmed_as_often_as_stated(correlation, low, high):
    found = alarmed(noise(2000, 200, correlation))
    assert low < np.mean([step is not None for step in found]) < high


@pytest.mark.parametrize(("start", "share"), [(0, 0.85), (30, 0.97)])
def test_a_rise_of_two_deviations_over_twenty_steps_is_caught(start, share):
    rise = 2 * np.clip((np.arange(200) - start) / 20, 0, 1)
    found = alarmed(noise(500, 200, seed=1) + rise)
    assert np.mean([step is not None for step in found]) > share
    assert np.median([step for step in found if step is not None]) - start < 45


def test_the_sum_is_what_a_pencil_says():
    start = np.array([1.0, -1.0] * 5)  # mean 0; deviation sqrt(10 / 9)
    for height, steps in ((9.0, 6), (2 * (10 / 9) ** 0.5, 12)):  # capped at 3: 2 a step; 2 deviations: 1 a step
        values = np.concatenate([start, np.full(30, height)])
        assert first_alarm(values, "up") == BASELINE + steps - 1
        assert first_alarm(values[: BASELINE + steps - 1], "up") is None


def test_one_cut_response_is_no_alarm_and_a_falling_share_of_ended_ones_is():
    (ended,) = (signal for signal in SIGNALS if signal.name == "ended")
    still = np.ones(60)
    still[20:40:4] = 63 / 64
    falling = np.concatenate([np.ones(20), np.linspace(1, 0.5, 40)])
    alarms = [first_alarm(values, ended.direction, ended.least_spread) for values in (still, falling)]
    assert alarms[0] is None
    assert alarms[1] is not None and falling[alarms[1]] > 0.8


def test_each_direction_sees_its_own_side_only():
    rise = np.concatenate([np.array([0.3, 0.1] * 5), np.full(20, 2.0)])
    seen = {
        direction: [first_alarm(sign * rise, direction) is not None for sign in (1, -1)]
        for direction in ("up", "down", "stronger")
    }
    assert seen == {"up": [True, False], "down": [False, True], "stronger": [True, True]}
    weaker = np.concatenate([np.array([-0.9, -0.7] * 5), np.full(20, 0.1)])
    assert first_alarm(weaker, "stronger") is None


@given(st.lists(st.floats(-3, 3, width=16), max_size=60), st.integers(-3, 3))
def test_it_does_not_look_ahead_nor_at_the_unit(steps, power):
    values = np.array(steps)
    values[BASELINE:] += 1.0
    found = first_alarm(values, "up")
    prefixes = [first_alarm(values[:end], "up") for end in range(len(values) + 1)]
    assert prefixes == [None if found is None or end <= found else found for end in range(len(values) + 1)]
    assert first_alarm(values * 2.0**power, "up") == found  # by a power of two, which rounds nothing


def test_steps_without_a_measurement_do_not_count():
    values = noise(1, 80, seed=2)[0] + np.where(np.arange(80) < 20, 0, 6)
    sparse = np.full(240, np.nan)
    sparse[::3] = values
    assert first_alarm(sparse, "up") == 3 * first_alarm(values, "up")


@pytest.mark.parametrize("values", [[], [np.nan] * 50, [1.0] * BASELINE, [0.0] * 50, list(1 + 1e-9 * np.arange(50.0))])
def test_what_is_too_short_or_stands_still_is_silent(values):
    assert first_alarm(np.array(values, dtype=float), "up") is None


def test_one_odd_batch_raises_no_alarm():
    values = np.tile([1.0, -1.0], 30)
    values[20:22] = 1e6
    assert first_alarm(values, "up") is None


# In a run


def test_warnings_name_the_step_and_stay():
    values = np.concatenate([noise(1, 20, seed=3)[0], np.full(10, 9.0)])
    records = [{"step": 100 + i, "disagreement": value, "head_correlation": None} for i, value in enumerate(values)]
    found = warnings_of(records)
    assert set(found) == {signal.name for signal in SIGNALS}
    assert found["disagreement"] == 100 + first_alarm(values, "up")
    assert found["head_correlation"] is found["feature_distance"] is None
    assert warnings_of(records[:20])["disagreement"] is None
    json.dumps(found)


# Leads


class Trace:
    """A run with a signal that jumps at one step, and gold that peaks at another or never."""

    def __init__(self, jump, turn, signal="disagreement", steps=100):
        at = np.arange(steps, dtype=float)
        wave = 0.1 * (-1.0) ** at
        gold = at if turn is None else np.where(at <= turn, at, 2 * turn - at)
        self.axis, self.budget, self.position = "step", None, at
        self.columns = {"gold": gold, "gold_se": np.full(steps, 0.1), "kl_nats": 0.5 * at}
        self.columns[signal] = wave if jump is None else wave + (at >= jump)

    def series(self, name):
        return self.columns.get(name, np.full(len(self.position), np.nan))


def lead(runs, signal="disagreement"):
    found = {record.signal: record for record in alarm_leads({"single": runs})}
    assert list(found) == [s.name for s in (*SIGNALS, CONTROL)]
    return found[signal]


def test_leads_are_counted_in_steps_and_nats():
    runs = [Trace(30, 60), Trace(40, 60), Trace(70, 60), Trace(None, 60), Trace(50, None), Trace(None, None)]
    record = lead(runs)
    delay = first_alarm(runs[0].series("disagreement"), "up") - 30
    assert delay == 5  # capped at 3: six steps
    assert (record.num_turned, record.num_ahead, record.num_late) == (4, 2, 1)
    assert (record.num_unturned, record.num_false) == (2, 1)
    assert record.lead_steps == 15.0  # of 25, 15 and -15
    assert record.lead_nats == pytest.approx(7.5)  # half a nat a step
    json.dumps(asdict(record), allow_nan=False)


def test_an_alarm_at_the_turn_itself_is_ahead():
    assert lead([Trace(55, 60)]).num_ahead == 1
    assert lead([Trace(56, 60)]).num_late == 1


def test_runs_without_the_signal_or_without_gold_are_left_out():
    blind = Trace(30, 60)
    blind.columns["gold"] = np.full(100, np.nan)
    single = Trace(30, 60)
    single.columns["disagreement"] = np.zeros(100)  # of one head
    record = lead([blind, single, Trace(30, 60, signal="feature_distance")])
    assert (record.num_turned, record.num_unturned, record.lead_steps) == (0, 0, None)
    assert lead([single]).num_turned == 0 and lead([single], "kl_nats").num_turned == 1
    unsure = Trace(30, 60)
    del unsure.columns["gold_se"]  # whether it turned cannot be told from noise
    assert lead([unsure], "kl_nats").num_turned == 0


def test_the_control_is_alarmed_by_kl_alone():
    record = lead([Trace(None, 60)], "kl_nats")
    assert record.num_ahead == 1
    assert record.lead_steps == 60 - first_alarm(0.5 * np.arange(100.0), "up")


def test_curves_are_kept_apart():
    records = alarm_leads({"single": [Trace(30, 60)], "ensemble": [Trace(None, 60)]})
    first = {record.curve: record.num_ahead for record in records if record.signal == "disagreement"}
    assert first == {"single": 1, "ensemble": 0}
