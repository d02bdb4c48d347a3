"""The comparison with a baseline: every figure by hand, and nothing invented where nothing was measured."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from framework.analysis.best_of_n import POOL_LINK
from framework.analysis.columns import BEST_OF_N
from framework.analysis.comparison import RUNS, TESTED, Cell, compare, wins
from framework.analysis.over_seeds import Estimate, paired_difference, t_interval
from framework.analysis.table import RunRecord, build_table
from framework.errors import UserError
from framework.measure import outcome_of
from tests.unit.fake_run import write_fake_run

NOTHING = Estimate(None, None, 0)


def record(folder: Path, seed: int, condition: str, variant: str, point: str = "", budget=None) -> RunRecord:
    name = "-".join(filter(None, (condition, variant, point)))
    curve = "-".join(filter(None, (condition, variant)))
    settings = {"train.kl.budget": budget} if point else {}
    return RunRecord(name, curve, condition, variant, point, seed, "online", budget, settings, "finished", folder)


def write_study(folder: Path, seeds: int = 3, points=("",), **options) -> list[RunRecord]:
    """Two conditions of two variants, without pools; the later variant turns later."""
    records = []
    for condition in ("noisy", "clean"):
        for position, variant in enumerate(("single", "worst_case")):
            for place, point in enumerate(points):
                for seed in range(seeds):
                    number = seed + 50 * len(records)
                    run = folder / f"seed_{seed}" / f"{condition}-{variant}{point}" / "train"
                    write_fake_run(run, seed=number, steps=30, peak=0.35 + 0.2 * position + 0.1 * place, **options)
                    records.append(record(run, seed, condition, variant, point, place + 1.0 if point else None))
    return records


def write_pool(run: Path, heads: np.ndarray, gold: np.ndarray, ns: list[int], kind: str = "mean") -> None:
    """The scored pool of a run, and the aggregation that it is read with."""
    scores = run.parent.parent / f"scores-{run.parent.name}" / "scores.safetensors"
    scores.parent.mkdir(exist_ok=True)
    save_file({"heads": heads.astype(np.float32), "gold": gold.astype(np.float32)}, scores)
    link = {"scores": f"../{scores.parent.name}/{scores.name}", "ns": ns}
    (run.parent / POOL_LINK).write_text(json.dumps(link))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("kind: mean", f"kind: {kind}"))


def compared(records, baseline="single"):
    return compare(build_table(records), records, baseline)


@pytest.fixture
def study(tmp_path):
    records = write_study(tmp_path)
    rng = np.random.default_rng(0)
    for each in records:
        gold = np.random.default_rng(each.seed).normal(size=(4, 8))
        write_pool(each.folder, gold + rng.normal(size=(2, 4, 8)), gold, [1, 2, 8])
    return records


@pytest.mark.parametrize(
    ("own", "rival", "rate"),
    [([1.0, 3.0], [2.0, 2.0], 0.5), ([1.0, 2.0], [2.0], 0.25), ([5.0], [1.0], 1.0), ([0.0, 0.0], [0.0, 1.0], 0.25)],
)  # fmt: skip
def test_a_win_is_counted_pair_by_pair_and_a_tie_is_half(own, rival, rate):
    """Samples of one number are left out where both have as many."""
    assert wins(np.array(own), np.array(rival)) == rate
    assert wins(np.array(rival), np.array(own)) == 1 - rate


def test_runs_are_paired_by_condition_and_seed(study):
    figures = compared(study).figures[RUNS]
    golds = {
        (c.condition, c.variant, c.seed): outcome_of(c).gold_end for c in build_table(study).curves if c.axis == "step"
    }  # fmt: skip
    for condition in ("noisy", "clean"):
        own, base = (
            {seed: golds[condition, variant, seed] for seed in range(3)} for variant in ("worst_case", "single")
        )
        estimate = figures[condition, "worst_case", ""]["gold_end_difference"]
        assert estimate == paired_difference(own, base) and estimate.interval is not None
        baseline = figures[condition, "single", ""]
        assert baseline["gold_end_difference"] == baseline["win_rate"] == NOTHING
    fewer = [each for each in study if (each.run, each.seed) != ("noisy-single", 1)]
    assert compared(fewer).figures[RUNS]["noisy", "worst_case", ""]["win_rate"].num_seeds == 2


def test_a_grid_is_compared_at_equal_points(tmp_path):
    records = write_study(tmp_path, points=("budget=1", "budget=2"))
    comparison = compared(records)
    assert comparison.points == ("budget=1", "budget=2") and comparison.conditions == ("noisy", "clean")
    alone = compared([each for each in records if each.point == "budget=2"])
    cell = Cell("clean", "worst_case", "budget=2")
    assert comparison.figures[RUNS][cell] == alone.figures[RUNS][cell]
    without = [each for each in records if (each.variant, each.point) != ("single", "budget=1")]
    assert compared(without).figures[RUNS]["clean", "worst_case", "budget=1"]["win_rate"] == NOTHING


def test_variants_of_other_methods_are_compared_too(tmp_path):
    records = write_study(tmp_path, seeds=2)
    mixed = [replace(r, method="fake" if r.variant == "worst_case" else r.method) for r in records]
    assert compared(mixed) == compared(records)


def test_the_other_baseline_gives_the_negative(study):
    for method in (RUNS, BEST_OF_N):
        forth = compared(study, "single").figures[method]["clean", "worst_case", ""]
        back = compared(study, "worst_case").figures[method]["clean", "single", ""]
        for key in ("gold_end_difference", "gold_peak_difference"):
            assert forth[key].mean == pytest.approx(-back[key].mean) != 0
        assert forth["win_rate"].mean == pytest.approx(1 - back["win_rate"].mean) != 0.5


def test_a_share_and_its_interval_stay_inside_zero_and_one(study):
    for figures in compared(study).figures[RUNS].values():
        if (rate := figures["win_rate"]).interval:
            assert 0 <= rate.interval[0] <= rate.mean <= rate.interval[1] <= 1


def test_marks_are_holms_over_the_variants_of_a_condition(study):
    """Three rivals: a difference that is clear by itself may not be clear among three."""
    comparison = compared(study)
    clean = comparison.figures[RUNS]["clean", "worst_case", ""]["gold_end_difference"]
    assert clean.p_value < 0.05 / 3 and clean.mean > 0
    assert comparison.marks[RUNS]["clean", "worst_case", ""]["gold_end_difference"] == 1
    assert comparison.marks[RUNS]["clean", "single", ""] == dict.fromkeys(TESTED, 0)
    assert compared(study, "worst_case").marks[RUNS]["clean", "single", ""]["gold_end_difference"] == -1


def test_best_of_n_by_hand(tmp_path):
    gold = np.array([[0.0, 1.0, 2.0], [3.0, 3.0, 9.0]])
    likes_first, likes_second, likes_last = np.eye(3)[:, None, :].repeat(2, axis=1)
    single, worst = (write_fake_run(tmp_path / name / "train", steps=3) for name in ("single", "worst"))
    records = [record(single, 0, "", "single"), record(worst, 0, "", "worst")]
    write_pool(single, likes_first[None], gold, [1, 3])
    write_pool(worst, np.stack([likes_last, likes_last - likes_second]), gold, [1, 3], "worst_case")
    mine, theirs = (compared(records).figures[BEST_OF_N]["", name, ""] for name in ("single", "worst"))
    assert [mine[key].mean for key in ("gold_end", "gold_peak", "gold_peak_at")] == [1.5, 3.0, 1.0]
    assert theirs["gold_end"].mean == theirs["gold_peak"].mean == 5.5
    assert theirs["kl_nats_at_gold_peak"].mean == pytest.approx(np.log(3) - 2 / 3)
    assert theirs["gold_end_difference"].mean == 4.0
    assert theirs["win_rate"].mean == 1.0
    write_pool(worst, likes_last[None], gold + 1, [1, 3], "worst_case")
    other = compared(records).figures[BEST_OF_N]["", "worst", ""]
    assert other["win_rate"] == other["gold_end_difference"] == NOTHING  # another pool


def test_without_gold_there_is_no_figure_and_no_nan(tmp_path):
    rows = json.loads(json.dumps(compared(write_study(tmp_path, gold_every=None)).to_json(), allow_nan=False))["rows"]
    (row,) = [row for row in rows if (row["condition"], row["variant"]) == ("noisy", "worst_case")]
    for key in ("gold_end", "gold_peak_difference", "win_rate", "gap_end", "kl_nats_at_gold_peak"):
        assert row[key] == {"mean": None, "interval": None, "num_seeds": 0, "p_value": None}
    assert row["kl_nats_end"]["num_seeds"] == 3 and row["by"] == RUNS


def test_one_seed_has_no_interval(tmp_path):
    comparison = compared(write_study(tmp_path, seeds=1))
    estimates = [e for cell in comparison.figures[RUNS].values() for e in cell.values() if e.mean is not None]
    assert estimates and all(estimate.interval is None and estimate.sign == 0 for estimate in estimates)
    assert not any(mark for cell in comparison.marks[RUNS].values() for mark in cell.values())


def test_gold_scored_now_and_then_is_compared_where_it_was(tmp_path):
    comparison = compared(write_study(tmp_path, seeds=1, gold_every=7))
    assert comparison.figures[RUNS]["clean", "worst_case", ""]["win_rate"].num_seeds == 1


def test_heads_are_read_off_the_table(study):
    figures = compared(study).figures[RUNS]["clean", "single", ""]
    assert figures["disagreement_start"].mean < figures["disagreement_end"].mean
    ratio = figures["disagreement_end"].mean / figures["disagreement_start"].mean
    assert figures["disagreement_ratio"].mean == pytest.approx(ratio)
    assert figures["head_correlation_end"].mean < figures["head_correlation_start"].mean == pytest.approx(0.9)


def test_the_accuracy_is_the_reward_stages_own(tmp_path):
    records = write_study(tmp_path, seeds=2)
    assert compared(records).figures[RUNS]["clean", "single", ""]["accuracy"] == NOTHING
    for each, accuracy in zip(records[4 * 2 - 4 :], (0.75, 0.85, 0.9, 0.9), strict=True):
        manifest = json.loads((each.folder / "manifest.json").read_text())
        manifest["parents"]["reward"]["figures"] = {"mean_accuracy_on_gold": accuracy}
        (each.folder / "manifest.json").write_text(json.dumps(manifest))
    found = compared(records).figures[RUNS]["clean", "single", ""]["accuracy"]
    assert found.mean == pytest.approx(0.8) and 0 < found.interval[0] < found.interval[1] < 1


def test_only_the_last_rollouts_and_the_first_are_read(study):
    before = compared(study)
    for each in study:
        for step in range(1, 20):
            (each.folder / "rollouts" / f"step_{step:06d}.parquet").write_text("not a table")
    assert compared(study) == before


def test_a_table_alone_has_no_win_rate_and_all_else(study):
    table = build_table(study)
    alone = compare(table, table.records, "single").figures[RUNS]["clean", "worst_case", ""]
    whole = compared(study).figures[RUNS]["clean", "worst_case", ""]
    assert alone["win_rate"] == NOTHING and whole["win_rate"] != NOTHING
    assert alone["gold_end_difference"] == whole["gold_end_difference"]
    assert whole["gold_end"].interval == pytest.approx(
        t_interval([outcome_of(c).gold_end for c in table.curves_of("clean-worst_case", "online")])
    )


@pytest.mark.parametrize("text", ["{", "{}", '{"scores": "gone.safetensors", "ns": [1]}'])
def test_a_pool_that_is_gone_is_one_line(study, text):
    (study[0].folder.parent / POOL_LINK).write_text(text)
    with pytest.raises(UserError, match="cannot be read") as raised:
        compared(study)
    assert "\n" not in str(raised.value)
