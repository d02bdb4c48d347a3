"""A sweep's table, analysed."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from framework.analysis.forms import FORMS
from framework.analysis.sweep_analysis import analyse_sweep
from framework.analysis.sweep_table import SweepTable, read_table
from tests.unit.known_curves import TRUTH, known_table, rng_of


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
