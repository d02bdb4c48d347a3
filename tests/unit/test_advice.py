"""Budgets asked for against reached, and which one to recommend."""

import numpy as np
import pyarrow as pa
import pytest

from framework.analysis.advice import TOLERATED_SHARE, budget_means, close_to_best, recommend
from framework.analysis.curves import t_interval
from framework.analysis.reached import budget_ends, by_seed, trial_end
from framework.analysis.sweep_analysis import analyse_sweep
from framework.analysis.sweep_table import SweepTable, TrialCurve
from framework.seeding import numpy_generator
from tests.unit.known_curves import known_table


def curve(*, kl, gold, budget=4.0, seed=0, status="finished", **metrics):
    """A trial's rows."""
    data = pa.table({"step": range(len(kl)), "kl_nats": kl, "gold": gold, **metrics})
    return TrialCurve("t", "m", "rl", budget, seed, status, data)


def seeds(*values):
    return dict(enumerate(values))


def test_end_is_the_last_fifth():
    """Eleven steps: the last three."""
    kl = [0.0] * 8 + [4.0, 4.2, 4.4]
    end = trial_end(curve(kl=kl, gold=[0.0] * 8 + [1.0, 2.0, 6.0], proxy=[0.0] * 8 + [3.0, 3.0, 3.0]))
    assert end.kl_nats == pytest.approx(4.2) and end.ratio == pytest.approx(1.05) and end.within
    assert (end.gold, end.proxy, end.gap) == (3.0, 3.0, None)
    assert not trial_end(curve(kl=[4.5] * 5, gold=[0.0] * 5)).within


def test_gold_of_a_trial_that_measured_it_seldom():
    """Nothing in the last fifth: the last of the second half. Where some is there, it alone counts."""
    kl = [4.0] * 10
    assert trial_end(curve(kl=kl, gold=[0.0, None, None, 3.0, None, 7.0, *[None] * 4])).gold == 7.0
    assert trial_end(curve(kl=kl, gold=[0.0, None, None, None, 7.0, *[None] * 5])).gold is None
    assert trial_end(curve(kl=kl, gold=[0.0, *[None] * 7, 2.0, None])).gold == 2.0
    assert trial_end(curve(kl=kl, gold=pa.nulls(10, pa.float64()))).gold is None


def test_without_a_budget_nothing_is_asked():
    end = trial_end(curve(kl=[1.0], gold=[1.0], budget=None))
    assert end.ratio is None and end.within is None
    (row,) = budget_ends([end])
    assert (row.budget, row.num_judged, row.gold.mean) == (None, 0, 1.0)


def test_asked_and_reached_over_seeds():
    kls = (3.9, 4.1, 4.6)
    ends = [trial_end(curve(kl=[kl] * 5, gold=[kl] * 5, seed=seed)) for seed, kl in enumerate(kls)]
    (row,) = budget_ends(ends)
    assert (row.budget, row.num_seeds, row.num_within, row.num_judged) == (4.0, 3, 2, 3)
    assert row.num_steps == (5, 5)
    assert row.kl_nats.mean == pytest.approx(4.2) and row.kl_nats.interval == pytest.approx(t_interval(kls))
    assert row.proxy.mean is None


def test_seed_with_two_trials_counts_once():
    ends = [
        trial_end(curve(kl=[4.0], gold=[gold], seed=seed)) for seed, gold in ((0, 1.0), (0, 3.0), (1, 5.0))
    ]
    assert by_seed(ends, "gold") == {0: 2.0, 1: 5.0}
    assert budget_ends(ends)[0].gold.mean == 3.5


def test_largest_budget_that_is_surely_close():
    """8 and 16 lose a little on every seed, 32 a lot; the seeds themselves differ by more than all that."""
    gold = {
        4.0: seeds(2.0, 3.0, 4.0, 5.0),
        8.0: seeds(1.99, 2.98, 3.99, 4.98),
        16.0: seeds(1.95, 2.96, 3.94, 4.95),
        32.0: seeds(1.0, 2.0, 3.1, 3.9),
    }
    advice = recommend(gold, start=2.5)
    assert advice.epsilon == pytest.approx(TOLERATED_SHARE * 1.0)
    assert (advice.best_budget, advice.budget) == (4.0, 16.0)
    assert [row.is_close for row in advice.rows] == [True, True, True, False]
    assert advice.rows[2].below_best.mean == pytest.approx(0.05)
    assert advice.rows[0].below_best.interval == (0.0, 0.0)
    assert "Ask for 16 nats: the largest budget sure to lose at most 0.1 gold" in advice.sentence
    assert advice.interval[0] <= 16.0 <= advice.interval[1] < 32.0


def test_a_smaller_loss_allowed_a_smaller_budget():
    gold = {1.0: seeds(2.0, 2.1, 2.2), 2.0: seeds(1.9, 2.0, 2.1), 4.0: seeds(1.7, 1.8, 1.9)}
    assert [recommend(gold, 0.0, epsilon).budget for epsilon in (0.0, 0.15, 0.5)] == [1.0, 2.0, 4.0]


def test_a_loss_that_is_not_sure_to_be_small_is_not_taken():
    """The mean loss is 0.05, less than the 0.1 allowed, but the seeds do not agree on it."""
    gold = {1.0: seeds(1.0, 1.0, 1.0), 2.0: seeds(0.5, 1.3, 1.05)}
    advice = recommend(gold, 0.0)
    assert advice.budget == advice.best_budget == 1.0
    assert "no larger budget is sure to lose at most 0.1" in advice.sentence


def test_best_at_the_largest():
    advice = recommend({1.0: seeds(1.0, 1.1), 2.0: seeds(2.0, 2.1)}, 0.0)
    assert advice.budget == 2.0 and "a larger one may be better still" in advice.sentence


def test_one_seed_gives_no_interval():
    advice = recommend({1.0: {0: 1.0}, 2.0: {0: 2.0}, 4.0: {0: 1.99}}, 0.0)
    assert (advice.budget, advice.interval, advice.num_seeds) == (2.0, None, 1)
    assert "One seed" in advice.sentence


def test_one_budget_gives_no_advice():
    assert recommend({1.0: seeds(1.0, 2.0), 2.0: {}}, 0.0) is None
    assert recommend({}, None) is None


def test_unknown_start_allows_no_loss():
    assert recommend({1.0: seeds(1.0, 1.0), 2.0: seeds(0.99, 0.99)}, None).budget == 1.0
    assert recommend({1.0: seeds(1.0, 1.0), 2.0: seeds(0.99, 0.99)}, 5.0).epsilon == 0.0


def test_runs_that_are_not_there():
    """Pairs are the seeds that both have; a budget with one such seed shows nothing."""
    gold = {1.0: seeds(2.0, 2.0, 2.0), 2.0: {0: 1.95, 2: 1.95}, 4.0: {1: 2.0}}
    advice = recommend(gold, 0.0)
    assert advice.budget == 2.0
    assert [row.below_best.num_seeds for row in advice.rows] == [3, 2, 1]


def additive_means(values):
    """Mean of each budget over all seeds by least squares on gold = budget + seed, the effects of seeds summing to 0."""
    budget, seed = np.nonzero(np.isfinite(values))
    design = np.concatenate([np.eye(values.shape[0])[budget], np.eye(values.shape[1])[seed]], axis=1)
    effects = np.linalg.lstsq(design, values[budget, seed])[0]
    return effects[: values.shape[0]] + effects[values.shape[0] :].mean()


def test_means_where_runs_are_missing():
    rng = numpy_generator("tests", "missing")
    values = rng.normal(size=(7, 5)) + 3 * rng.normal(size=5)
    np.testing.assert_allclose(budget_means(values[None])[0], values.mean(axis=1), rtol=1e-6)
    values[[0, 2, 6, 6], [1, 4, 0, 3]] = np.nan
    np.testing.assert_allclose(budget_means(values[None])[0], additive_means(values), rtol=1e-6)


def test_a_budget_is_not_best_because_its_seeds_are():
    """Only seed 0, which has much gold with every budget, went as far as 64 nats, and lost by it."""
    gold = {1.0: {0: 2.4, 1: 0.4, 2: 0.5, 3: 0.5}, 2.0: {0: 2.5, 1: 0.4, 2: 0.5, 3: 0.5}, 64.0: {0: 1.0}}
    advice = recommend(gold, 0.0)
    assert (advice.best_budget, advice.budget) == (2.0, 2.0)
    assert "3 of 12 runs have no gold at their end" in advice.sentence
    assert recommend({1.0: {0: 2.0, 1: 0.0, 2: 0.1}, 2.0: {0: 1.9}}, 0.0).best_budget == 1.0
    assert (
        recommend({1.0: {0: 1.0, 1: 1.2}, 2.0: {2: 2.0, 3: 1.9}}, 0.0).best_budget == 2.0
    )  # nothing links them
    assert "no gold at their end" not in recommend({1.0: seeds(1, 2), 2.0: seeds(2, 1)}, 0.0).sentence


def test_gold_that_is_nan_is_a_run_without():
    assert recommend({1.0: {0: float("nan")}, 2.0: seeds(1.0, 2.0)}, 0.0) is None
    with_nan = {1.0: {0: 1.0, 1: float("nan")}, 2.0: seeds(1.5, 2.0)}
    assert recommend(with_nan, 0.0) == recommend({1.0: {0: 1.0}, 2.0: seeds(1.5, 2.0)}, 0.0)


def test_what_the_advice_cannot_say_is_said():
    falling = {1.0: seeds(1.5, 1.6), 2.0: seeds(0.9, 1.0)}
    assert "No budget brought more gold than the initial policy has, 2:" in recommend(falling, 2.0).sentence
    assert "initial policy" not in recommend(falling, 1.0).sentence
    assert "Gold of the initial policy is not known" in recommend(falling, None).sentence
    assert "not known" not in recommend(falling, None, epsilon=0.1).sentence


def test_rule_on_many_draws_is_the_rule_on_each():
    rng = numpy_generator("tests", "rule")
    values = rng.normal(size=(20, 4, 5)) + np.array([1.0, 1.2, 1.1, 0.2])[:, None]
    values[rng.random(values.shape) < 0.1] = np.nan
    for draw, close in zip(values, close_to_best(values, 0.3), strict=True):
        best = additive_means(draw).argmax()
        for budget in range(4):
            loss = draw[best] - draw[budget]
            interval = t_interval(loss[np.isfinite(loss)].tolist())
            assert close[budget] == (budget == best or (interval is not None and interval[1] <= 0.3))


def test_rule_holds_its_confidence():
    """Two budgets, the larger worse by just epsilon: it is recommended in about a fortieth of the sweeps."""
    rng = numpy_generator("tests", "confidence")
    chosen = 0
    for _ in range(600):
        seed_effect = rng.normal(0, 2, 4)
        gold = np.stack([10 + rng.normal(0, 0.1, 4), 9 + rng.normal(0, 0.1, 4)]) + seed_effect
        chosen += bool(close_to_best(gold[None], 1.0)[0][1])
    assert chosen <= 27, chosen


def test_same_gold_same_advice():
    gold = {1.0: seeds(1.0, 1.2, 0.9), 2.0: seeds(1.1, 1.0, 1.2), 4.0: seeds(0.9, 1.3, 1.0)}
    assert recommend(gold, 0.0) == recommend(gold, 0.0)


def test_advice_of_a_sweep_leaves_out_trials_that_did_not_end():
    table = known_table(numpy_generator("tests", "ends"), methods=("single",))
    status = ["failed" if budget == 64.0 else "finished" for budget in table.data["budget"].to_pylist()]
    place = table.data.column_names.index("status")
    table = SweepTable(table.data.set_column(place, "status", pa.array(status)), table.settings)
    method = analyse_sweep(table).methods["single"]
    assert [row.budget for row in method.budgets] == [1.0, 4.0, 16.0]
    assert method.statuses == {"finished": 9, "failed": 3}
    assert method.advice.rows[-1].budget == 16.0
    assert method.frontiers["rl"].num_points == 1200  # what they logged is good for the curve


def test_few_gold_evaluations_are_enough():
    """Gold at four steps of each run: there are still fits and advice."""
    table = known_table(numpy_generator("tests", "few"), methods=("single",))
    gold, step = table.column("gold"), table.column("step")
    gold[~np.isin(step, [0, 30, 60, 75])] = np.nan
    place = table.data.column_names.index("gold")
    method = analyse_sweep(
        SweepTable(table.data.set_column(place, "gold", pa.array(gold)), table.settings)
    ).methods
    assert method["single"].advice.budget in (4.0, 16.0)
    assert method["single"].frontiers["rl"].num_points == 48
