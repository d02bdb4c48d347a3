"""Experiments, analysed: curves, fits, points and advice, from any method's rows."""

import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from framework.analysis.columns import BEST_OF_N
from framework.analysis.experiment import RunOutcome, analyse, by_seed, point_outcomes
from framework.analysis.frontier import FORMS
from framework.analysis.over_seeds import t_interval, wilson
from framework.analysis.table import Table, read_table
from framework.measure import outcome_of
from tests.unit.known_curves import TRUTH, known_table, replaced, rng_of


def of(table, **options):
    return analyse("an experiment", table, table.records, **options)


class Nothing:
    """A curve of which nothing was measured."""

    axis, budget, position = "step", None, np.arange(5.0)

    def series(self, name):
        return np.full(5, math.nan)


NOTHING = outcome_of(Nothing())


@pytest.fixture(scope="module")
def table():
    return known_table(rng_of("table"))


def test_advice_on_a_budget_that_no_run_reached_says_so(table):
    assert "None of its runs" not in of(table).curves["single"].advice.sentence
    short = of(replaced(table, "kl_nats", table.data["kl_nats"].to_numpy() / 100)).curves["single"]
    kl = next(point.kl_nats.mean for point in short.points if point.choice == short.advice.choice)
    assert kl < short.advice.choice.budget / 50
    assert f"None of its runs came to this budget: they ended at {kl:.2g} nats" in short.advice.sentence


@pytest.mark.parametrize(("steps", "climb"), [(30, 5), (100, 20)])
def test_exact_tables_give_the_truth(steps, climb):
    """Gold belongs to the KL of its own step: smoothed, the climb would bend the curve."""
    parts = []
    for seed in range(3):
        for budget in (4.0, 16.0, 64.0):
            kl = budget * (1 - np.exp(-np.arange(steps) / climb))
            gold = TRUTH["r0"] + FORMS["rl"].basis(np.sqrt(kl)) @ np.array([TRUTH["alpha"], TRUTH["beta"]])
            names = {"run": f"b{budget:g}", "curve": "m", "budget": budget, "seed": seed}
            rows = {name: [value] * steps for name, value in names.items()}
            parts.append(pa.table(rows | {"at": np.arange(steps), "kl_nats": kl, "gold": gold}))
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(parts), buffer)
    fits = of(read_table(pa.BufferReader(buffer.getvalue()))).curves["m"].frontiers["online"].fits
    for fit in fits[:2]:
        assert fit.coefficients == pytest.approx(TRUTH, abs=1e-8)
        assert fit.peak.supported and fit.peak.d == pytest.approx(math.e, abs=1e-6)


def test_analysis_of_a_table(table):
    analysis = of(table)
    assert list(analysis.curves) == ["single", "uwo"]
    single, uwo = (analysis.curves[name] for name in ("single", "uwo"))
    assert [(fit.form, fit.intercept) for fit in single.frontiers["online"].fits] == [
        ("rl", True),
        ("rl", False),
        ("quadratic", True),
    ]
    assert single.frontiers["online"].main.peak.supported
    assert single.frontiers["online"].main.peak.d < uwo.frontiers["online"].main.peak.d
    assert single.statuses == {"finished": 12}
    assert [row.curve for row in single.frontiers["online"].errors] == ["rl", "rl", "quadratic", "isotonic"]
    assert single.frontiers["online"].losses.gap_at_end.num_seeds == 3
    assert single.advice.choice.budget in (4.0, 16.0)


def test_json_has_every_figure_and_no_nan(table):
    analysis = of(table)
    tree = json.loads(json.dumps(analysis.to_json(), allow_nan=False))
    fit = tree["curves"]["single"]["frontiers"]["online"]["fits"][0]
    assert fit["peak"]["d"] == analysis.curves["single"].frontiers["online"].main.peak.d
    assert set(fit["intervals"]) == {"r0", "alpha", "beta"}
    assert "draws" not in fit and "points" not in tree["curves"]["single"]["frontiers"]["online"]
    assert tree["curves"]["single"]["points"][0]["kl_nats"]["num_seeds"] == 3
    assert json.dumps(tree) == json.dumps(json.loads(json.dumps(of(table).to_json())))


def test_rows_without_gold_or_kl_are_dropped_and_counted(table):
    gold, kl = table.data["gold"].to_numpy(), table.data["kl_nats"].to_numpy()
    whole = of(table).curves["single"].frontiers["online"].main
    gold[5:25], kl[30], kl[2000] = np.nan, np.nan, np.inf
    analysis = of(replaced(replaced(table, "gold", gold), "kl_nats", kl))
    assert analysis.to_json()["dropped"] == 22
    fit = analysis.curves["single"].frontiers["online"].main
    assert (fit.num_points, fit.num_dropped) == (1200 - 21, 21)
    assert fit.coefficients["alpha"] == pytest.approx(whole.coefficients["alpha"], rel=0.1)


def test_a_curve_without_gold(table):
    """One curve has no gold at all: it is said, and the other is analysed as ever."""
    is_single = np.array(table.data["curve"].to_pylist()) == "single"
    analysis = of(replaced(table, "gold", np.where(is_single, np.nan, table.data["gold"].to_numpy())))
    frontier = analysis.curves["single"].frontiers["online"]
    assert frontier.fits == [] and frontier.losses is None
    assert frontier.verdict == "Nothing can be fitted: no row has both gold and KL."
    assert analysis.curves["single"].advice is None
    assert analysis.curves["single"].points[0].kl_nats.mean is not None
    assert analysis.curves["uwo"].frontiers["online"].main is not None
    json.dumps(analysis.to_json(), allow_nan=False)


def test_best_of_n_beside_the_runs(table):
    """The rows of best-of-n are fitted with their own form; gold at n = 1 is the start."""
    n = 2 ** np.arange(12)
    kl = np.log(n) - (n - 1) / n
    d = np.sqrt(kl)
    parts = [table.data]
    for seed in range(3):
        gold = 0.5 + FORMS["bon"].basis(d) @ np.array([1.0, 0.3 + 0.01 * seed])
        texts = {"run": "single", "curve": "single", "condition": "", "variant": "single", "point": ""}
        texts |= {"method": BEST_OF_N, "status": "finished", "axis": "n"}
        rows = {name: [text] * 12 for name, text in texts.items()} | {"seed": [seed] * 12}
        parts.append(pa.table({**rows, "at": n.astype(float), "kl_nats": kl, "gold": gold, "gap": d}))
    both = Table(pa.concat_tables(parts, promote_options="default"), table.settings)
    single = of(both).curves["single"]
    frontier = single.frontiers[BEST_OF_N]
    assert frontier.points.start == pytest.approx(0.5)
    assert frontier.main.form == "bon"
    assert frontier.main.coefficients["beta"] == pytest.approx(0.31)
    assert frontier.main.peak.supported and frontier.main.peak.d == pytest.approx(1 / 0.62, rel=1e-3)
    assert frontier.losses.gap_at_end.mean == pytest.approx(d[-1])
    assert {run.method for run in single.outcomes} == {"online"} and len(single.points) == 4
    assert single.statuses == {"finished": 12}


def test_a_method_that_sets_kl_by_another_key():
    """Nothing here knows the method, and no budget is asked: it is fitted, and advised by the point."""
    table = known_table(rng_of("dpo"), curves=("plain", "chi"), method="fake_dpo")
    betas = {1.0: 0.5, 4.0: 0.1, 16.0: 0.02, 64.0: 0.004}
    points = [f"beta={betas[budget]:g}" for budget in table.data["budget"].to_pylist()]
    table = replaced(replaced(table, "point", points), "budget", pa.nulls(len(points), pa.float64()))
    found = of(table, baseline="plain")
    plain = found.curves["plain"]
    assert [point.choice.point for point in plain.points] == ["beta=0.5", "beta=0.1", "beta=0.02", "beta=0.004"]
    assert all(point.choice.budget is None and point.held.mean is None for point in plain.points)
    assert plain.frontiers["fake_dpo"].main.form == "rl" and plain.frontiers["fake_dpo"].main.peak.supported
    assert plain.advice.choice.point in ("beta=0.1", "beta=0.02")
    assert plain.advice.sentence.startswith("Ask for beta=0.") and "nats" not in plain.advice.sentence
    cells = found.comparison.figures["runs"]
    assert {cell.point for cell in cells} == set(points)
    last = found.comparison.figures["runs"]["", "chi", "beta=0.004"]["gold_end_difference"]
    assert last.num_seeds == 3 and last.sign == 1
    json.dumps(found.to_json(), allow_nan=False)


def test_runs_over_seeds_by_point():
    kls = (3.9, 4.1, 4.6)
    parts = [
        pa.table({"run": ["t"] * 5, "curve": ["m"] * 5, "seed": [seed] * 5, "budget": [4.0] * 5}
                 | {"kl_nats": [kl] * 5, "gold": [kl] * 5, "at": np.arange(5.0)})
        for seed, kl in enumerate(kls)
    ]  # fmt: skip
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(parts), buffer)
    (row,) = of(read_table(pa.BufferReader(buffer.getvalue()))).curves["m"].points
    assert (row.choice.budget, row.num_seeds, row.num_held, row.held.num_seeds) == (4.0, 3, 2, 3)
    assert row.held.interval == wilson(2 / 3, 3) and row.steps == (5, 5)
    assert row.kl_nats.mean == pytest.approx(4.2) and row.kl_nats.interval == pytest.approx(t_interval(kls))
    assert row.proxy.mean is None


def test_a_seed_with_two_runs_counts_once():
    runs = [
        RunOutcome(f"{number}", "", seed, "online", "finished", replace(NOTHING, gold_end=gold))
        for number, (seed, gold) in enumerate(((0, 1.0), (0, 3.0), (1, 5.0)))
    ]
    assert by_seed(runs, "gold_end") == {0: 2.0, 1: 5.0}
    assert point_outcomes(runs)[0].gold.mean == 3.5


def test_runs_that_did_not_end_count_for_curves_and_not_for_points():
    table = known_table(rng_of("ends"), curves=("single",))
    status = ["failed" if budget == 64.0 else "finished" for budget in table.data["budget"].to_pylist()]
    single = of(replaced(table, "status", status)).curves["single"]
    assert [row.choice.budget for row in single.points] == [1.0, 4.0, 16.0]
    assert single.statuses == {"finished": 9, "failed": 3}
    assert single.advice.rows[-1].choice.budget == 16.0
    assert single.frontiers["online"].num_points == 1200  # what they logged is good for the curve


def test_few_gold_evaluations_are_enough():
    """Gold at four steps of each run: there are still fits and advice."""
    table = known_table(rng_of("few"), curves=("single",))
    gold, step = table.data["gold"].to_numpy(), table.data["at"].to_numpy()
    gold[~np.isin(step, [0, 30, 60, 75])] = np.nan
    single = of(replaced(table, "gold", gold)).curves["single"]
    assert single.advice.choice.budget in (4.0, 16.0)
    assert single.frontiers["online"].num_points == 48
