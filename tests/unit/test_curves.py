"""Curves: smoothing over measured steps, the sqrt(KL) axis, means over seeds, and unreadable folders."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from framework.analysis.curves import (
    band_by_axis,
    band_by_step,
    load_run,
    moving_mean,
    moving_standard_error,
    over_seeds,
    read_origin,
    t_interval,
)
from framework.errors import UserError
from tests.unit.fake_run import write_fake_run


def test_the_moving_mean_is_centred_and_truncated():
    values = np.arange(10.0) ** 2
    smooth = moving_mean(values)
    assert smooth[0] == pytest.approx((0 + 1 + 4) / 3)
    assert smooth[4] == pytest.approx((4 + 9 + 16 + 25 + 36) / 5)
    assert smooth[9] == pytest.approx((49 + 64 + 81) / 3)


def test_the_window_counts_measurements_and_shrinks_in_short_runs():
    sparse = np.full(100, math.nan)
    sparse[::10] = np.arange(10.0) ** 2
    smooth = moving_mean(sparse)
    assert smooth[40] == pytest.approx(18.0)
    assert np.isfinite(smooth).sum() == 10
    assert moving_mean(np.array([0.0, 3.0, 9.0])).tolist() == [0.0, 3.0, 9.0]
    assert moving_mean(np.array([0.0, 3.0, 9.0, 0, 0, 0]))[1] == pytest.approx(4.0)


def test_the_standard_error_of_a_moving_mean_falls_with_the_window():
    values, errors = np.zeros(12), np.full(12, 0.5)
    smooth = moving_standard_error(errors, values)
    assert smooth[6] == pytest.approx(0.5 / math.sqrt(5))
    assert smooth[0] == pytest.approx(0.5 / math.sqrt(3))
    errors[9] = math.nan  # unknown there, and wherever the window holds it
    assert np.isnan(moving_standard_error(errors, values)).tolist() == [False] * 7 + [True] * 5


def test_the_t_interval_agrees_with_scipy():
    values = [1.0, 2.0, 4.0, 4.5]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert t_interval(values) == pytest.approx(expected)
    assert t_interval([1.0]) is None


def test_a_mean_over_seeds_keeps_only_points_that_every_seed_has():
    band = over_seeds(np.arange(3.0), np.array([[1.0, 2.0, math.nan], [3.0, 6.0, 7.0]]))
    assert band.axis.tolist() == [0, 1]
    assert band.mean.tolist() == [2, 4]
    assert (band.low[1], band.high[1]) == pytest.approx(t_interval([2.0, 6.0]))
    alone = over_seeds(np.arange(2.0), np.array([[1.0, 2.0]]))
    assert np.isnan(alone.low).all()


def test_seeds_are_matched_by_step():
    band = band_by_step(
        [np.array([0.0, 1, 2]), np.array([0.0, 2])], [np.array([1.0, 9, 3]), np.array([3.0, 5])]
    )
    assert band.axis.tolist() == [0, 2]
    assert band.mean.tolist() == [2, 4]


def test_on_the_kl_axis_seeds_meet_at_equal_kl_not_at_equal_step():
    fast, slow = np.linspace(0, 4, 50), np.linspace(0, 2, 200)
    band = band_by_axis([fast, slow], [fast * 10, slow * 10])
    assert band.axis.max() <= 2.1
    assert band.mean == pytest.approx(band.axis * 10)
    assert band.high == pytest.approx(band.low)


def test_a_negative_kl_estimate_is_drawn_at_zero(tmp_path):
    run = load_run(write_fake_run(tmp_path / "run", steps=12))
    for record in run.metrics:
        record["kl_nats"] -= 100
    assert (run.sqrt_kl == 0).all()


def test_the_gap_starts_at_the_initial_policys_means(tmp_path):
    folder = write_fake_run(tmp_path / "run", steps=12, rows=64, rollouts=True)
    origin = read_origin(folder)
    assert origin is not None and origin.step == 0 and origin.num_rows == 64
    assert origin.gap(origin.proxy_mean, origin.gold_mean) == 0
    one_up = origin.gap(origin.proxy_mean + origin.proxy_std, origin.gold_mean)
    assert one_up == pytest.approx(1)


def test_there_is_no_gap_without_gold_or_rollouts(tmp_path):
    assert read_origin(write_fake_run(tmp_path / "a", steps=3, gold_every=None)) is None
    run = load_run(write_fake_run(tmp_path / "b", steps=3, rollouts=False))
    assert np.isnan(run.gap()).all()


def test_an_interrupted_last_line_is_left_out_and_a_rerun_step_replaced(tmp_path):
    folder = write_fake_run(tmp_path / "run", steps=4)
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text() + json.dumps({"step": 2, "proxy": 77}) + '\n{"step": 9, "pro')
    run = load_run(folder)
    assert run.steps.tolist() == [0, 1, 2, 3]
    assert run.series("proxy")[2] == 77


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.jsonl", "", "holds no step"),
        ("metrics.jsonl", '{"step": 0}\nrubbish\n{"step": 1}\n', "line 2"),
        ("metrics.jsonl", "[1]\n", "expected an object"),
        ("config.yaml", "a: [", "not YAML"),
        ("manifest.json", "{", "not JSON"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, text, message):
    folder = write_fake_run(tmp_path / "run", steps=2)
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_run(folder)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        load_run(tmp_path)
