"""The table of a sweep: what is in it, that the same sweep gives the same bytes, and what it refuses."""

import errno
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from framework.analysis import sweep_table
from framework.analysis.best_of_n import best_of_n_kl
from framework.analysis.comparison import POOL_LINK
from framework.analysis.curves import load_run
from framework.analysis.sweep_table import build_table, read_table
from framework.errors import RunError, UserError
from tests.unit.fake_run import write_fake_run
from tests.unit.known_curves import known_table, record, write_trial


@pytest.fixture
def runs(tmp_path):
    """Two budgets of one seed, gold measured at every second step."""
    rng = np.random.default_rng(0)
    return [
        write_trial(tmp_path / f"seed_0/single-budget_{budget}/train", rng=rng, budget=budget, gold_every=2)
        for budget in (2.0, 8.0)
    ]


@pytest.fixture
def records(runs):
    return [record(run, budget=budget) for run, budget in zip(runs, (2.0, 8.0), strict=True)]


def link_pool(run, seed=0):
    """A scored pool of 6 prompts and 8 responses beside the run."""
    rng = np.random.default_rng(seed)
    heads, gold = rng.normal(size=(2, 6, 8)).astype(np.float32), rng.normal(size=(6, 8)).astype(np.float32)
    save_file({"heads": heads, "gold": gold}, run.parent / "scores.safetensors")
    (run.parent / POOL_LINK).write_text(json.dumps({"scores": "scores.safetensors", "ns": [1, 2, 8]}))


def test_columns_and_rows(records, runs):
    table = build_table(records)
    assert table.data.column_names == [
        *("trial", "method", "optimiser", "budget", "seed", "status", "kl.budget", "step", "n"),
        *("proxy", "gold", "kl_nats", "kl_coef", "gap"),
    ]
    assert table.settings == ("kl.budget",)
    assert table.metrics == ("proxy", "gold", "kl_nats", "kl_coef", "gap")
    assert table.data["step"].to_pylist() == [*range(20), *range(20)]
    assert table.data["n"].null_count == 40
    assert table.data["budget"].to_pylist() == [2.0] * 20 + [8.0] * 20
    assert table.data["gold"].null_count == 20
    np.testing.assert_array_equal(table.curves[1].series("gold"), load_run(runs[1]).series("gold"))
    kl = table.curves[1].series("kl_nats")
    np.testing.assert_array_equal(table.curves[1].sqrt_kl, np.sqrt(np.maximum(kl, 0)))  # each step by itself
    np.testing.assert_array_equal(np.sqrt(table.curves[1].smooth_kl), load_run(runs[1]).sqrt_kl)


def test_gap_is_the_runs(tmp_path):
    run = write_fake_run(tmp_path / "seed_0/a/train", steps=10)
    gap = build_table([record(run)]).column("gap")
    assert np.isfinite(gap).all()
    np.testing.assert_array_equal(gap, load_run(run).gap())


def test_same_sweep_same_bytes(records, tmp_path):
    first, second = (build_table(records).write(tmp_path / name) for name in ("a.parquet", "b.parquet"))
    assert first.read_bytes() == second.read_bytes()


def test_round_trip(records, tmp_path):
    table = build_table(records)
    again = read_table(table.write(tmp_path / "results.parquet"))
    assert again.data.equals(table.data)
    assert (again.settings, again.metrics) == (table.settings, table.metrics)


def test_a_table_is_written_whole_or_not_at_all(records, tmp_path, monkeypatch):
    table = build_table(records)
    before = table.write(tmp_path / "results.parquet").read_bytes()

    def write_half(data, path):
        Path(path).write_bytes(b"PAR1")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sweep_table.pq, "write_table", write_half)
    with pytest.raises(
        RunError, match=r"could not write .*results\.parquet: No space left on device; the old"
    ):
        table.write(tmp_path / "results.parquet")
    assert (tmp_path / "results.parquet").read_bytes() == before


def test_settings_of_every_kind(runs):
    """Numbers stay numbers; anything else is text, and what a trial does not set is null."""
    settings = [{"label.noise": 0.25, "shaping.kind": "none"}, {"shaping.kind": ["a", 1]}]
    both = [record(run, settings=own) for run, own in zip(runs, settings, strict=True)]
    data = build_table(both).data
    assert data["label.noise"].to_pylist() == [0.25] * 20 + [None] * 20
    assert set(data["shaping.kind"].to_pylist()) == {"none", '["a", 1]'}


def test_a_setting_named_like_a_metric(runs):
    table = build_table([record(runs[0], settings={"gold": {"kind": "rule"}})])
    assert table.settings == ("settings.gold",)
    assert table.data["settings.gold"][0].as_py() == '{"kind": "rule"}'
    assert np.isfinite(table.column("gold")).sum() == 10


def test_trials_that_never_began_or_failed(records):
    never = record(None, budget=16.0, status="unfinished")
    failed = record(records[1].run, budget=8.0, status="failed")
    table = build_table([records[0], failed, never])
    assert [(c.budget, c.status, c.is_complete) for c in table.curves] == [
        (2.0, "finished", True),
        (8.0, "failed", False),
    ]


def test_nothing_began():
    with pytest.raises(UserError, match="no trial of this sweep has logged a step"):
        build_table([record(None, status="unfinished")])


def test_best_of_n_is_read_once_per_method_and_seed(records, runs):
    for run in runs:
        link_pool(run)
    table = build_table(records)
    (curve,) = table.curves_of("single", "best_of_n")
    assert (curve.seed, curve.budget) == (0, None)
    assert curve.data["kl.budget"].null_count == 3
    np.testing.assert_array_equal(curve.position, [1, 2, 8])
    np.testing.assert_allclose(curve.series("kl_nats"), [best_of_n_kl(n) for n in (1, 2, 8)])
    np.testing.assert_allclose(curve.sqrt_kl**2, curve.series("kl_nats"))  # not smoothed
    assert (np.diff(curve.series("proxy")) > 0).all()
    assert curve.series("gap")[0] == pytest.approx(0, abs=1e-6)
    assert curve.last_fifth == slice(2, None)


def test_a_table_of_ones_own(tmp_path):
    """Only the needed columns, in any order and any number type; NaN and infinity are not measurements."""
    gold = pa.array([1.0, float("nan"), None, float("inf")], pa.float32())
    own = {"gold": gold, "seed": pa.array([0] * 4, pa.int8()), "kl_nats": [0, 1, 2, 3], "method": ["m"] * 4}
    pq.write_table(pa.table({**own, "trial": ["t"] * 4, "note": ["x"] * 4}), tmp_path / "own.parquet")
    table = read_table(tmp_path / "own.parquet")
    (curve,) = table.curves
    assert (curve.optimiser, curve.status, curve.budget) == ("rl", "finished", None)
    np.testing.assert_array_equal(curve.series("gold"), [1.0, np.nan, np.nan, np.nan])
    assert np.isnan(curve.series("proxy")).all()
    assert table.metrics == ("gold", "kl_nats")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"gold": None}, "no column gold"),
        ({"kl_nats": None, "seed": None}, "no column seed, kl_nats"),
        ({"gold": ["high", "low"]}, "column gold: expected double, found string"),
        ({"seed": pa.array([1, None])}, "column seed: 1 rows have no value"),
        ({"optimiser": ["rl", "sgd"]}, "'sgd' is none of rl, best_of_n"),
        ({"status": ["finished", "done"]}, "'done' is none of finished"),
        ({"budget": [1.0, 0.0]}, "column budget: 0 is no budget; give nats per sequence above 0"),
        ({"budget": [1.0, float("inf")]}, "column budget: inf is no budget"),
        ({"trial": ["a", "a"], "budget": [1.0, 2.0]}, "m, trial a, seed 0 .rl. has budget 1.0 and 2.0"),
        ({"trial": ["a", "a"], "status": ["failed", "finished"]}, "has status failed and finished"),
        ({"trial": ["a", "a"], "step": [3, 3]}, "more than one row for the same step"),
        (
            {"trial": ["a", "a"], "n": [2, 2], "optimiser": ["best_of_n"] * 2},
            "more than one row for the same n",
        ),
    ],
)
def test_refused(tmp_path, change, message):
    columns = {
        "trial": ["a", "b"],
        "method": ["m", "m"],
        "seed": [0, 0],
        "kl_nats": [1.0, 2.0],
        "gold": [1.0, 2.0],
    }
    columns = {name: values for name, values in {**columns, **change}.items() if values is not None}
    pq.write_table(pa.table(columns), tmp_path / "own.parquet")
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "own.parquet")


def test_a_budget_that_is_nan_is_none(tmp_path):
    columns = {
        "trial": ["a", "b"],
        "method": ["m"] * 2,
        "seed": [0, 0],
        "kl_nats": [1.0, 2.0],
        "gold": [1.0, 2.0],
    }
    pq.write_table(pa.table(columns | {"budget": [4.0, float("nan")]}), tmp_path / "own.parquet")
    assert [curve.budget for curve in read_table(tmp_path / "own.parquet").curves] == [4.0, None]


def test_not_a_table(tmp_path):
    (tmp_path / "t.parquet").write_text("nothing")
    with pytest.raises(UserError, match="cannot read"):
        read_table(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="cannot read"):
        read_table(tmp_path / "absent.parquet")
    empty = known_table(np.random.default_rng(0), steps=5).data.slice(0, 0)
    pq.write_table(empty, tmp_path / "empty.parquet")
    with pytest.raises(UserError, match="holds no rows"):
        read_table(tmp_path / "empty.parquet")


def test_curves_are_in_order_of_their_steps():
    table = known_table(np.random.default_rng(0), seeds=2, steps=6)
    shuffled = type(table)(
        table.data.take(np.random.default_rng(1).permutation(table.data.num_rows)), table.settings
    )
    by_name = {(c.trial, c.seed): c for c in shuffled.curves}
    for curve in table.curves:
        np.testing.assert_array_equal(by_name[curve.trial, curve.seed].position, np.arange(6))
        np.testing.assert_array_equal(by_name[curve.trial, curve.seed].series("gold"), curve.series("gold"))
