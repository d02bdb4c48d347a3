"""The comparison of a study with its baseline: every figure by hand, and nothing invented where nothing was measured."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import save_file

from framework.analysis.comparison import (
    POOL_LINK,
    Estimate,
    Measured,
    compare_runs,
    measure_run,
    ppo_figures,
)
from framework.analysis.curves import load_run, moving_mean, t_interval
from framework.errors import UserError
from tests.unit.fake_run import write_fake_run

LAYOUT = {
    f"{condition}-{variant}": (condition, variant)
    for condition in ("noisy", "clean")
    for variant in ("single", "worst_case")
}


def write_study(folder: Path, seeds: int = 3, **options) -> dict[str, dict[int, Path]]:
    """Two conditions of two variants, without pools."""
    runs: dict[str, dict[int, Path]] = {}
    for position, name in enumerate(LAYOUT):
        for seed in range(seeds):
            run = folder / f"seed_{seed}" / name / "train"
            write_fake_run(run, seed=seed + 50 * position, steps=30, **options)
            runs.setdefault(name, {})[seed] = run
    return runs


def write_pool(run: Path, heads: np.ndarray, gold: np.ndarray, ns: list[int], kind: str = "mean") -> None:
    """The scored pool of a run, and the aggregation that it is read with."""
    scores = run.parent.parent / f"scores-{run.parent.name}" / "scores.safetensors"
    scores.parent.mkdir(exist_ok=True)
    save_file({"heads": heads.astype(np.float32), "gold": gold.astype(np.float32)}, scores)
    link = {"scores": f"../{scores.parent.name}/{scores.name}", "ns": ns}
    (run.parent / POOL_LINK).write_text(json.dumps(link))
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"aggregation": {"kind": kind}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def load(runs):
    return {name: {seed: load_run(run) for seed, run in seeds.items()} for name, seeds in runs.items()}


@pytest.fixture
def study(tmp_path):
    runs = write_study(tmp_path)
    rng = np.random.default_rng(0)
    for seeds in runs.values():
        for seed, run in seeds.items():
            gold = np.random.default_rng(seed).normal(size=(4, 8))
            write_pool(run, gold + rng.normal(size=(2, 4, 8)), gold, [1, 2, 8])
    return runs


def _judged(**by_prompt):
    rows = enumerate(by_prompt.items())
    return Measured({}, {(7, i): (prompt, np.array(gold)) for i, (prompt, gold) in rows}, None)


@pytest.mark.parametrize(
    ("own", "rival", "rate"),
    [
        ({"a": [1.0, 3.0]}, {"a": [2.0, 2.0]}, 0.5),
        ({"a": [1.0, 2.0]}, {"a": [2.0]}, 0.25),
        ({"a": [5.0], "b": [0.0, 0.0]}, {"a": [1.0], "b": [0.0, 1.0]}, (1 + 0.25) / 2),
        ({"a": [1.0]}, {"z": [0.0]}, None),
    ],
)
def test_a_win_is_counted_prompt_by_prompt_and_a_tie_is_half(own, rival, rate):
    empty = {"gold_final": None, "gold_peak": None}
    first, second = (
        Measured(empty, measured.judged, None) for measured in (_judged(**own), _judged(**rival))
    )
    assert ppo_figures(first, second)["win_rate"] == rate
    back = ppo_figures(second, first)["win_rate"]
    assert back is None if rate is None else back == pytest.approx(1 - rate)


def test_runs_are_paired_by_condition_and_seed(study):
    runs = load(study)
    comparison = compare_runs(runs, LAYOUT, "single")
    for condition in ("noisy", "clean"):
        own, base = runs[f"{condition}-worst_case"], runs[f"{condition}-single"]
        differences = [
            moving_mean(own[s].series("gold"))[-1] - moving_mean(base[s].series("gold"))[-1] for s in own
        ]
        estimate = comparison.ppo[condition, "worst_case"]["gold_final_difference"]
        assert estimate.mean == pytest.approx(np.mean(differences))
        assert estimate.interval == pytest.approx(t_interval(differences))
        baseline = comparison.ppo[condition, "single"]
        assert baseline["gold_final_difference"] == baseline["win_rate"] == Estimate(None, None, 0)
    del runs["noisy-single"][1]
    assert compare_runs(runs, LAYOUT, "single").ppo["noisy", "worst_case"]["win_rate"].num_seeds == 2


def test_the_other_baseline_gives_the_negative(study):
    runs = load(study)
    for method in ("ppo", "best_of_n"):
        forth = getattr(compare_runs(runs, LAYOUT, "single"), method)["clean", "worst_case"]
        back = getattr(compare_runs(runs, LAYOUT, "worst_case"), method)["clean", "single"]
        for key in ("gold_final_difference", "gold_peak_difference"):
            assert forth[key].mean == pytest.approx(-back[key].mean) != 0
        assert forth["win_rate"].mean == pytest.approx(1 - back["win_rate"].mean) != 0.5


def test_best_of_n_by_hand(tmp_path):
    layout = {"single": ("", "single"), "worst": ("", "worst")}
    gold = np.array([[0.0, 1.0, 2.0], [3.0, 3.0, 9.0]])
    likes_first, likes_second, likes_last = np.eye(3)[:, None, :].repeat(2, axis=1)
    runs = {name: {0: write_fake_run(tmp_path / name / "train", steps=3)} for name in layout}
    write_pool(runs["single"][0], likes_first[None], gold, [1, 3])
    write_pool(
        runs["worst"][0], np.stack([likes_last, likes_last - likes_second]), gold, [1, 3], "worst_case"
    )
    comparison = compare_runs(load(runs), layout, "single")
    single, worst = (comparison.best_of_n["", name] for name in layout)
    assert [single[key].mean for key in ("gold_final", "gold_peak", "n_at_gold_peak")] == [1.5, 3.0, 1.0]
    assert worst["gold_final"].mean == worst["gold_peak"].mean == 5.5
    assert worst["kl_nats_at_gold_peak"].mean == pytest.approx(np.log(3) - 2 / 3)
    assert worst["gold_final_difference"].mean == 4.0
    assert worst["win_rate"].mean == 1.0
    assert [point["gold"] for point in comparison.curves["", "worst"]] == pytest.approx([3.0, 5.5])
    write_pool(runs["worst"][0], likes_last[None], gold + 1, [1, 3])
    other = compare_runs(load(runs), layout, "single").best_of_n["", "worst"]
    assert other["win_rate"].mean is other["gold_final_difference"].mean is None  # another pool


def test_without_gold_there_is_no_figure_and_no_nan(tmp_path):
    comparison = compare_runs(load(write_study(tmp_path, gold_every=None)), LAYOUT, "single")
    text = json.dumps(comparison.to_json(), allow_nan=False)
    figures = json.loads(text)["ppo"]["noisy"]["worst_case"]
    for key in ("gold_final", "gold_peak_difference", "win_rate", "gap_final", "kl_nats_at_gold_peak"):
        assert figures[key] == {"mean": None, "interval": None, "seeds": 0}
    assert figures["kl_nats_final"]["seeds"] == 3
    assert json.loads(text)["best_of_n"] == {}


def test_one_seed_has_no_interval(tmp_path):
    comparison = compare_runs(load(write_study(tmp_path, seeds=1)), LAYOUT, "single")
    estimates = [e for figures in comparison.ppo.values() for e in figures.values() if e.mean is not None]
    assert estimates and all(estimate.interval is None and estimate.sign == 0 for estimate in estimates)


def test_gold_scored_now_and_then_is_compared_where_it_was(tmp_path):
    comparison = compare_runs(load(write_study(tmp_path, seeds=1, gold_every=7)), LAYOUT, "single")
    assert comparison.ppo["clean", "worst_case"]["win_rate"].num_seeds == 1


def test_disagreement_and_correlation_need_several_heads(tmp_path):
    run = write_fake_run(tmp_path / "run", steps=30)
    figures = measure_run(load_run(run)).figures
    assert figures["disagreement_start"] < figures["disagreement_final"]
    assert figures["disagreement_ratio"] == pytest.approx(
        figures["disagreement_final"] / figures["disagreement_start"]
    )
    assert figures["head_correlation_final"] == pytest.approx(1.0)  # the three heads are one
    lines = [json.loads(line) | {"heads": [0.0]} for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    for path in (run / "rollouts").iterdir():
        table = pq.read_table(path)
        column = pa.array([row[:1] for row in table["scores"].to_pylist()], pa.list_(pa.float32()))
        pq.write_table(table.set_column(table.column_names.index("scores"), "scores", column), path)
    figures = measure_run(load_run(run)).figures
    keys = ("disagreement_start", "disagreement_final", "disagreement_ratio", "head_correlation_start")
    assert [figures[key] for key in keys] == [None] * 4


def test_the_accuracy_is_the_reward_stages_own(tmp_path):
    run = write_fake_run(tmp_path / "run", steps=3)
    assert measure_run(load_run(run)).figures["accuracy"] is None
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["parents"]["reward"]["figures"] = {"mean_accuracy_on_gold": 0.75}
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert measure_run(load_run(run)).figures["accuracy"] == 0.75


def test_only_the_first_and_last_rollouts_are_read(study):
    before = compare_runs(load(study), LAYOUT, "single")
    for seeds in study.values():
        for run in seeds.values():
            for step in range(5, 20):
                (run / "rollouts" / f"step_{step:06d}.parquet").write_text("not a table")
    assert compare_runs(load(study), LAYOUT, "single") == before


@pytest.mark.parametrize("text", ["{", "{}", '{"scores": "gone.safetensors", "ns": [1]}'])
def test_a_pool_that_is_gone_is_one_line(study, text):
    (study["noisy-single"][0].parent / POOL_LINK).write_text(text)
    with pytest.raises(UserError, match="cannot be read") as raised:
        compare_runs(load(study), LAYOUT, "single")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("interval", "sign"), [((0.1, 0.2), 1), ((-0.2, -0.1), -1), ((-0.1, 0.1), 0), (None, 0)]
)
def test_the_sign_of_an_estimate(interval, sign):
    assert Estimate(0.0, interval, 2).sign == sign
