"""Summaries: the exact keys, gold that is sparse or absent, intervals over seeds."""

import json

import numpy as np
import pytest
from scipy import stats

from framework.analysis.curves import load_run, moving_mean
from framework.analysis.summary import (
    INTERVAL_KEYS,
    GoldArc,
    gold_arc,
    paired_difference,
    summarise_run,
    summarise_study,
)
from tests.unit.fake_run import write_fake_run, write_fake_study

KEYS = [
    *("steps", "seconds", "seed", "kl_nats_final", "proxy_start", "proxy_final", "gold_start", "gold_peak"),
    *("gold_peak_step", "kl_nats_at_gold_peak", "gold_final", "tokens_generated", "tokens_per_second"),
    *("warnings", "stage_seconds", "peak_rss_mb"),
]


def test_a_summary_has_the_documented_keys_and_is_plain_json(tmp_path):
    summary = summarise_run(write_fake_run(tmp_path / "run", steps=30, seed=3))
    assert list(summary) == KEYS
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["seed"] == 3
    assert summary["steps"] == 30
    assert summary["tokens_generated"] == 30 * 8 * 16
    assert summary["peak_rss_mb"] == {"policy": 529.0, "reward": 410.0}
    assert summary["tokens_per_second"] == pytest.approx(30 * 8 * 16 / summary["seconds"])
    assert sum(summary["stage_seconds"].values()) == pytest.approx(summary["seconds"])


def test_start_peak_and_end_are_read_off_the_moving_mean(tmp_path):
    folder = write_fake_run(tmp_path / "run", steps=60)
    run, summary = load_run(folder), summarise_run(folder)
    smooth = moving_mean(run.series("gold"))
    assert summary["gold_start"] == pytest.approx(run.series("gold")[:3].mean())
    assert summary["gold_peak"] == pytest.approx(smooth.max())
    assert summary["gold_peak"] < run.series("gold").max()
    assert summary["gold_peak_step"] == int(smooth.argmax())
    assert summary["kl_nats_at_gold_peak"] == pytest.approx(run.smoothed("kl_nats")[smooth.argmax()])
    assert summary["proxy_final"] == pytest.approx(run.series("proxy")[-3:].mean())


def test_sparse_gold_peaks_on_a_step_where_it_was_measured(tmp_path):
    summary = summarise_run(write_fake_run(tmp_path / "run", steps=100, gold_every=7))
    assert summary["gold_peak_step"] % 7 == 0
    assert 20 <= summary["gold_peak_step"] <= 60


def test_a_run_without_gold_or_timings_has_nulls(tmp_path):
    summary = summarise_run(write_fake_run(tmp_path / "run", steps=5, gold_every=None, timings=False))
    assert list(summary) == KEYS
    absent = {key for key, value in summary.items() if value is None}
    gold = {"gold_start", "gold_peak", "gold_peak_step", "kl_nats_at_gold_peak", "gold_final"}
    assert absent == gold | {"seconds", "tokens_generated", "tokens_per_second"}
    assert summary["stage_seconds"] == {}


def test_a_nan_metric_is_never_written(tmp_path):
    folder = write_fake_run(tmp_path / "run", steps=1)
    (folder / "metrics.jsonl").write_text('{"step": 0, "proxy": NaN, "gold": NaN, "kl_nats": Infinity}\n')
    summary = summarise_run(folder)
    json.dumps(summary, allow_nan=False)
    assert summary["proxy_final"] is None and summary["kl_nats_final"] is None


def test_a_study_averages_seeds_and_gives_t_intervals(tmp_path):
    runs = write_fake_study(tmp_path, variants=("single", "mean"), seeds=3, steps=30)
    study = summarise_study(runs)
    json.dumps(study, allow_nan=False)
    single = study["variants"]["single"]
    assert set(single) == {*KEYS, "intervals", "seeds"}
    assert single["seeds"] == [0, 1, 2]
    finals = [summarise_run(folder)["gold_final"] for folder in runs["single"].values()]
    assert single["gold_final"] == pytest.approx(np.mean(finals))
    expected = stats.t.interval(0.95, 2, loc=np.mean(finals), scale=stats.sem(finals))
    assert single["intervals"]["gold_final"] == pytest.approx(list(expected))
    assert single["peak_rss_mb"]["policy"] == 529.0


def test_the_warnings_are_those_that_the_run_logged_last(tmp_path):
    folder = write_fake_run(tmp_path / "run", steps=3)
    assert summarise_run(folder)["warnings"] == {}
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["warnings"] = {"disagreement": 1 if line["step"] else None, "feature_distance": None}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert summarise_run(folder)["warnings"] == {"disagreement": 1, "feature_distance": None}
    averaged = summarise_study({"one": {0: folder, 1: folder}})["variants"]["one"]
    assert averaged["warnings"] == {"disagreement": 1.0, "feature_distance": None}


def test_one_seed_has_null_intervals(tmp_path):
    runs = write_fake_study(tmp_path, variants=("single",), seeds=1, steps=4)
    single = summarise_study(runs)["variants"]["single"]
    assert single["intervals"] == dict.fromkeys(INTERVAL_KEYS)
    assert single["seeds"] == [0]


def test_a_later_turn_keeps_more_of_the_gain(tmp_path):
    early = gold_arc(load_run(write_fake_run(tmp_path / "early", peak=0.3)))
    late = gold_arc(load_run(write_fake_run(tmp_path / "late", peak=0.5)))
    assert early is not None and late is not None
    assert early.turned_over and late.turned_over
    assert early.share_lost > 1.5 * late.share_lost


def test_the_share_lost_is_what_a_pencil_says_and_noise_is_no_gain():
    arc = GoldArc(1.0, 0.1, 3.0, 0.1, 31, 11.2, 2.0, 0.1)
    assert arc.share_lost == pytest.approx(0.5) and arc.turned_over
    noise = GoldArc(1.0, 0.1, 1.2, 0.1, 31, 11.2, 0.2, 0.1)
    assert noise.share_lost is None and not noise.turned_over
    still_up = GoldArc(1.0, 0.1, 3.0, 0.1, 31, 11.2, 2.9, 0.1)
    assert still_up.gained and not still_up.turned_over


def test_differences_are_paired_by_seed(tmp_path):
    runs = write_fake_study(tmp_path, variants=("single", "mean"), seeds=3, steps=30)
    read = {name: {seed: load_run(path) for seed, path in seeds.items()} for name, seeds in runs.items()}
    difference = paired_difference(read["mean"], read["single"], "gold_final")
    finals = [summarise_run(runs[v][s])["gold_final"] for v in ("mean", "single") for s in range(3)]
    assert difference is not None and difference.num_pairs == 3
    assert difference.mean == pytest.approx(np.mean(finals[:3]) - np.mean(finals[3:]))
    assert difference.is_clear
    assert paired_difference(read["mean"], {9: read["single"][0]}, "gold_final") is None
