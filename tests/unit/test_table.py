"""The table of runs: what is in it, that the same runs give the same bytes, and what it refuses."""

import errno
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from framework.analysis import columns as columns_module
from framework.analysis.best_of_n import POOL_LINK, best_of_n_kl
from framework.analysis.columns import BEST_OF_N
from framework.analysis.run_folder import load_run
from framework.analysis.table import build_table, read_table, record_of, summarise_run
from framework.errors import RunError, UserError
from framework.measure import outcome_of
from tests.unit.fake_run import write_fake_run
from tests.unit.known_curves import known_table, record, write_bare_run


@pytest.fixture
def runs(tmp_path):
    """Two budgets of one seed, gold measured at every second step."""
    rng = np.random.default_rng(0)
    return [
        write_bare_run(tmp_path / f"seed_0/single-budget_{budget}/train", rng=rng, budget=budget, gold_every=2)
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
        *("run", "curve", "condition", "variant", "point", "seed", "method", "budget", "status"),
        *("train.kl.budget", "axis", "at", "proxy", "gold", "kl_nats", "kl_coef", "gap"),
    ]
    assert table.settings == ("train.kl.budget",)
    assert table.data["at"].to_pylist() == [*range(20), *range(20)]
    assert set(table.data["axis"].to_pylist()) == {"step"}
    assert table.data["budget"].to_pylist() == [2.0] * 20 + [8.0] * 20
    assert table.data["gold"].null_count == 20
    np.testing.assert_array_equal(table.curves[1].series("gold"), load_run(runs[1]).series("gold"))
    kl = table.curves[1].series("kl_nats")
    np.testing.assert_array_equal(table.curves[1].sqrt_kl, np.sqrt(np.maximum(kl, 0)))


def test_gap_is_the_runs(tmp_path):
    run = write_fake_run(tmp_path / "seed_0/a/train", steps=10)
    gap = build_table([record(run)]).curves[0].series("gap")
    assert np.isfinite(gap).all()
    np.testing.assert_array_equal(gap, load_run(run).series("gap"))


@pytest.mark.parametrize("gold_every", [1, 9])
def test_one_run_has_one_outcome_however_it_is_read(tmp_path, gold_every):
    """From its folder, from a table of it alone, from one of many and from the file."""
    folders = [write_fake_run(tmp_path / f"seed_{seed}/a/train", seed=seed, gold_every=gold_every) for seed in range(2)]
    many = build_table([record(folder, budget=30.0, seed=seed) for seed, folder in enumerate(folders)])
    file = read_table(many.write(tmp_path / "results.parquet"))
    alone = build_table([record(folders[1], budget=30.0, seed=1)])
    outcomes = [outcome_of(table.curves[-1]) for table in (many, file, alone)]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    by_folder = outcome_of(build_table([record_of(folders[1])]).curves[0])
    assert by_folder.to_json() == {
        **outcomes[0].to_json(), "budget": None, "budget_ratio": None, "budget_held": None
    }  # fmt: skip
    summary = summarise_run(folders[1])
    assert {key: summary[key] for key in by_folder.to_json()} == by_folder.to_json()
    assert (summary["seed"], summary["tokens_generated"], summary["warnings"]) == (1, 60 * 8 * 16, {})
    json.dumps(summary, allow_nan=False)


def test_a_folder_by_itself_tells_its_budget(runs):
    (runs[1] / "manifest.json").write_text(json.dumps({"kind": "online", "fingerprint": "f", "budget": 8.0}))
    own = record_of(runs[1])
    assert (own.budget, own.method, own.run, own.status) == (8.0, "online", "single-budget_8.0", "unfinished")
    table = build_table([record(runs[1], budget=8.0)])
    assert outcome_of(build_table([own]).curves[0]) == outcome_of(table.curves[0])


def test_a_run_without_gold_or_timings_has_nulls(tmp_path):
    summary = summarise_run(write_fake_run(tmp_path / "run", steps=5, gold_every=None, timings=False))
    assert summary["gold_start"] is summary["gold_peak"] is summary["tokens_generated"] is None
    assert summary["gained"] is False and summary["proxy_end"] is not None


def test_a_nan_metric_is_never_written(tmp_path):
    folder = write_fake_run(tmp_path / "run", steps=1)
    (folder / "metrics.jsonl").write_text('{"step": 0, "proxy": NaN, "gold": NaN, "kl_nats": Infinity}\n')
    summary = summarise_run(folder)
    json.dumps(summary, allow_nan=False)
    assert summary["proxy_end"] is None and summary["kl_nats_end"] is None


def test_the_warnings_are_those_that_the_run_logged_last(tmp_path):
    folder = write_fake_run(tmp_path / "run", steps=3)
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["warnings"] = {"disagreement": 1 if line["step"] else None, "feature_distance": None}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert summarise_run(folder)["warnings"] == {"disagreement": 1, "feature_distance": None}


def test_same_runs_same_bytes(records, tmp_path):
    first, second = (build_table(records).write(tmp_path / name) for name in ("a.parquet", "b.parquet"))
    assert first.read_bytes() == second.read_bytes()


def test_round_trip(records, tmp_path):
    table = build_table(records)
    again = read_table(table.write(tmp_path / "results.parquet"))
    assert again.data.equals(table.data)
    assert again.settings == table.settings and again.data.column_names == table.data.column_names


def test_a_table_is_written_whole_or_not_at_all(records, tmp_path, monkeypatch):
    table = build_table(records)
    before = table.write(tmp_path / "results.parquet").read_bytes()

    def write_half(data, path):
        Path(path).write_bytes(b"PAR1")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(columns_module.pq, "write_table", write_half)
    with pytest.raises(RunError, match=r"could not write .*results\.parquet: No space left on device; the old"):
        table.write(tmp_path / "results.parquet")
    assert (tmp_path / "results.parquet").read_bytes() == before


def test_settings_of_every_kind(runs):
    """Numbers stay numbers; anything else is text, and what a trial does not set is null."""
    settings = [{"label.noise": 0.25, "train.shaping": "none"}, {"train.shaping": ["a", 1]}]
    both = [record(run, settings=own) for run, own in zip(runs, settings, strict=True)]
    data = build_table(both).data
    assert data["label.noise"].to_pylist() == [0.25] * 20 + [None] * 20
    assert set(data["train.shaping"].to_pylist()) == {"none", '["a", 1]'}


def test_a_setting_named_like_a_metric(runs):
    table = build_table([record(runs[0], settings={"gold": {"kind": "rule"}})])
    assert table.settings == ("settings.gold",)
    assert table.data["settings.gold"][0].as_py() == '{"kind": "rule"}'
    assert table.data["gold"].null_count == 10


def test_runs_that_never_began_or_failed(records):
    never = record(None, budget=16.0, status="unfinished")
    failed = record(records[1].folder, budget=8.0, status="failed")
    table = build_table([records[0], failed, never])
    assert [(c.budget, c.status, c.is_complete) for c in table.curves] == [
        (2.0, "finished", True),
        (8.0, "failed", False),
    ]


def test_nothing_began():
    with pytest.raises(UserError, match="no run has logged a step"):
        build_table([record(None, status="unfinished")])


def test_best_of_n_is_read_once_per_curve_and_seed(records, runs):
    for run in runs:
        link_pool(run)
    table = build_table(records)
    (curve,) = table.curves_of("single", BEST_OF_N)
    assert (curve.seed, curve.budget, curve.point, curve.axis) == (0, None, "", "n")
    assert curve.data["train.kl.budget"].null_count == 3
    np.testing.assert_array_equal(curve.position, [1, 2, 8])
    np.testing.assert_allclose(curve.series("kl_nats"), [best_of_n_kl(n) for n in (1, 2, 8)])
    assert (np.diff(curve.series("proxy")) > 0).all()
    assert curve.series("gap")[0] == pytest.approx(0, abs=1e-6)
    assert outcome_of(curve).gold_end == curve.series("gold")[-1]


def test_best_of_n_has_the_settings_that_its_curve_shares(runs):
    """Not the key that sets KL, whatever that is; here it is beta."""
    link_pool(runs[0])
    both = [
        record(run, point=f"beta={beta:g}", settings={"train.beta": beta, "label.noise": 0.25})
        for run, beta in zip(runs, (0.1, 0.5), strict=True)
    ]
    (curve,) = build_table(both).curves_of("single", BEST_OF_N)
    assert curve.data["label.noise"].to_pylist() == [0.25] * 3 and curve.data["train.beta"].null_count == 3
    assert curve.point == '{"label.noise": 0.25}'


def test_a_table_of_ones_own(tmp_path):
    """Only the needed columns, in any order and any number type; NaN and infinity are not measurements."""
    gold = pa.array([1.0, float("nan"), None, float("inf")], pa.float32())
    own = {"gold": gold, "seed": pa.array([0] * 4, pa.int8()), "kl_nats": [0, 1, 2, 3], "run": ["t"] * 4}
    pq.write_table(pa.table({**own, "note": ["x"] * 4}), tmp_path / "own.parquet")
    table = read_table(tmp_path / "own.parquet")
    (curve,) = table.curves
    assert (curve.curve, curve.method, curve.axis, curve.status, curve.budget) == (
        *("all", "online", "step", "finished"),
        None,
    )
    np.testing.assert_array_equal(curve.series("gold"), [1.0, np.nan, np.nan, np.nan])
    assert np.isnan(curve.series("proxy")).all()
    (known,) = table.records
    assert (known.run, known.seed, known.folder, known.settings) == ("t", 0, None, {})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"gold": None}, "no column gold"),
        ({"kl_nats": None, "seed": None}, "no column seed, kl_nats"),
        ({"gold": ["high", "low"]}, "column gold: expected double, found string"),
        ({"seed": pa.array([1, None])}, "column seed: 1 rows have no value"),
        ({"status": ["finished", "done"]}, "'done' is none of finished"),
        ({"budget": [1.0, 0.0]}, "column budget: 0 is no budget; give nats per sequence above 0"),
        ({"budget": [1.0, float("inf")]}, "column budget: inf is no budget"),
        ({"run": ["a", "a"], "budget": [1.0, 2.0]}, "m, run a, seed 0 .online. has budget 1.0 and 2.0"),
        ({"run": ["a", "a"], "status": ["failed", "finished"]}, "has status failed and finished"),
        ({"run": ["a", "a"], "at": [3, 3]}, "more than one row for the same step"),
        ({"run": ["a", "a"], "at": [2, 2], "axis": ["epoch"] * 2}, "more than one row for the same epoch"),
    ],
)
def test_refused(tmp_path, change, message):
    columns = {name: values for name, values in {**OWN, **change}.items() if values is not None}
    pq.write_table(pa.table(columns), tmp_path / "own.parquet")
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "own.parquet")


OWN = {"run": ["a", "b"], "curve": ["m", "m"], "seed": [0, 0], "kl_nats": [1.0, 2.0], "gold": [1.0, 2.0]}


def test_any_method_is_a_method(tmp_path):
    pq.write_table(pa.table(OWN | {"method": ["dpo", "kto"]}), tmp_path / "own.parquet")
    assert [c.method for c in read_table(tmp_path / "own.parquet").curves] == ["dpo", "kto"]


def test_a_budget_that_is_nan_is_none(tmp_path):
    pq.write_table(pa.table(OWN | {"budget": [4.0, float("nan")]}), tmp_path / "own.parquet")
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
    shuffled = type(table)(table.data.take(np.random.default_rng(1).permutation(table.data.num_rows)), table.settings)
    by_name = {(c.run, c.seed): c for c in shuffled.curves}
    for curve in table.curves:
        np.testing.assert_array_equal(by_name[curve.run, curve.seed].position, np.arange(6))
        np.testing.assert_array_equal(by_name[curve.run, curve.seed].series("gold"), curve.series("gold"))
