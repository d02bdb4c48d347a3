"""Best-of-n from one pool: the mean over all subsets, whatever the pool's order and whatever ties in it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from framework.analysis.best_of_n import Ranking, best_of_n_kl, best_of_n_points, best_of_n_win_rate, rank_weights
from framework.best_of_n import BestOfN
from framework.errors import RunError


def pool(seed=0, prompts=3, samples=7, levels=None):
    """Scores of a pool; with `levels`, the proxy has few values and so ties."""
    random = np.random.default_rng(seed)
    proxy, gold = random.normal(size=(2, prompts, samples))
    if levels:
        proxy = random.integers(levels, size=proxy.shape).astype(float)
    return proxy, gold


def curve_of(proxy, gold, ns):
    return Ranking.of(proxy).curve(gold, ns)


def points_of(heads, proxy, gold, ns):
    return best_of_n_points(heads, {"mine": proxy}, gold, ns)["mine"]


def best_by_hand(proxy, gold, n):
    """Mean over all subsets of n, a tie for the best being broken by a fair draw."""
    values = []
    for subset in itertools.combinations(range(len(proxy)), n):
        top = max(proxy[i] for i in subset)
        values.append(np.mean([gold[i] for i in subset if proxy[i] == top]))
    return np.mean(values)


@given(st.integers(0, 10_000), st.sampled_from([None, 1, 2, 4]))
def test_the_curve_is_the_mean_over_all_subsets(seed, levels):
    proxy, gold = pool(seed, levels=levels)
    curve = curve_of(proxy, gold, range(1, 8))
    for row in range(len(proxy)):
        by_hand = [best_by_hand(proxy[row], gold[row], n) for n in range(1, 8)]
        np.testing.assert_allclose(curve[row], by_hand, rtol=1e-10, atol=1e-12)


@given(st.integers(0, 10_000), st.sampled_from([None, 3]))
def test_gold_stays_with_its_response_whatever_the_order_of_the_pool(seed, levels):
    proxy, gold = pool(seed, prompts=4, samples=40, levels=levels)
    ns = (1, 2, 5, 17, 40)
    order = np.random.default_rng(seed + 1).permutation(40)
    shuffled = curve_of(proxy[:, order], gold[:, order], ns)
    np.testing.assert_allclose(shuffled, curve_of(proxy, gold, ns), rtol=1e-11, atol=1e-12)


def test_gold_shuffled_by_itself_loses_what_the_proxy_knows_of_it():
    proxy, _ = pool(prompts=50, samples=200)
    gold, ns = proxy.copy(), (1, 8, 64)
    order = np.random.default_rng(1).permutation(200)
    together = curve_of(proxy[:, order], gold[:, order], ns).mean(axis=0)
    alone = curve_of(proxy, gold[:, order], ns).mean(axis=0)
    assert together[2] > 2
    assert abs(alone[2] - alone[0]) < 0.5
    assert alone[0] == pytest.approx(together[0])


def test_the_ends_of_the_curve_are_the_mean_and_the_best():
    proxy, gold = pool(samples=50)
    curve = curve_of(proxy, gold, (1, 50))
    np.testing.assert_allclose(curve[:, 0], gold.mean(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(curve[:, 1], gold[np.arange(3), proxy.argmax(axis=1)])


@pytest.mark.parametrize(("size", "n"), [(1, 1), (6, 2), (200, 199), (500, 60), (2000, 1000)])
def test_rank_weights_are_the_exact_fractions(size, n):
    exact = [math.comb(i - 1, n - 1) / math.comb(size, n) for i in range(1, size + 1)]
    np.testing.assert_allclose(rank_weights(size, n), exact, rtol=1e-11, atol=1e-300)


def test_more_than_the_pool_holds_is_a_defect():
    with pytest.raises(AssertionError):
        curve_of(*pool(samples=7), [8])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_refused_by_name(bad):
    proxy, gold = pool()
    proxy[2, 4] = bad
    with pytest.raises(RunError, match="sample 4 of prompt 2"):
        curve_of(proxy, gold, [2])


def test_kl_in_nats():
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(4) == pytest.approx(math.log(4) - 0.75)
    assert best_of_n_kl(12_500) == pytest.approx(8.43, abs=0.005)


@pytest.mark.parametrize("levels", [None, 2])
def test_selection_is_a_distribution_that_gives_the_same_curve(levels):
    proxy, gold = pool(samples=12, levels=levels)
    ranking = Ranking.of(proxy)
    for n in (1, 3, 12):
        chosen = ranking.selection(n)
        np.testing.assert_allclose(chosen.sum(axis=1), 1, rtol=1e-12)
        np.testing.assert_allclose((chosen * gold).sum(axis=1), ranking.curve(gold, [n])[:, 0], rtol=1e-10)


@given(st.integers(0, 10_000), st.sampled_from([None, 3]))
def test_the_win_rate_is_that_of_all_pairs_of_draws(seed, levels):
    proxy, gold = pool(seed, samples=9)
    rival, tied_gold = pool(seed + 1, samples=9, levels=levels)[0], np.round(gold)
    for judged in (gold, tied_gold):
        won = (judged[:, :, None] > judged[:, None, :]) + 0.5 * (judged[:, :, None] == judged[:, None, :])
        rates = best_of_n_win_rate(proxy, rival, judged, (1, 4, 9))
        for column, n in enumerate((1, 4, 9)):
            ours, theirs = Ranking.of(proxy).selection(n), Ranking.of(rival).selection(n)
            by_hand = np.einsum("pi,pij,pj->p", ours, won, theirs)
            np.testing.assert_allclose(rates[:, column], by_hand, rtol=1e-10, atol=1e-12)


def test_win_rates_of_a_proxy_against_itself_and_of_gold_against_its_opposite():
    proxy, gold = pool(samples=30)
    np.testing.assert_allclose(best_of_n_win_rate(proxy, proxy, gold, (1, 8, 30)), 0.5)
    rates = best_of_n_win_rate(gold, -gold, gold, (1, 8, 30))
    np.testing.assert_allclose(rates[:, 0], 0.5)
    np.testing.assert_allclose(rates[:, 2], 1.0)
    assert (rates[:, 1] > 0.9).all()


def test_points_are_means_over_prompts_with_their_standard_errors():
    proxy, gold = pool(prompts=5, samples=20)
    points = points_of(proxy[None], proxy, gold, (1, 4, 20))
    values = curve_of(proxy, gold, (1, 4, 20))
    assert [point["n"] for point in points] == [1, 4, 20]
    assert points[1]["gold"] == pytest.approx(values[:, 1].mean())
    assert points[1]["gold_se"] == pytest.approx(values[:, 1].std(ddof=1) / 5**0.5)
    assert points[1]["kl_nats"] == pytest.approx(math.log(4) - 0.75)
    assert points[0]["gap"] == pytest.approx(0, abs=1e-12)
    top = max(points, key=lambda point: point["gold"])
    assert top["below_peak"] == 0
    assert points[0]["below_peak"] == pytest.approx(top["gold"] - points[0]["gold"])
    assert "win_rate" not in points[0]


def test_gap_is_in_standard_deviations_of_the_pool_and_unknown_where_gold_is_constant():
    proxy, gold = pool(samples=20)
    last = points_of(proxy[None], proxy, gold, (20,))[0]
    expected = (last["proxy"] - proxy.mean()) / proxy.std() - (last["gold"] - gold.mean()) / gold.std()
    assert last["gap"] == pytest.approx(expected)
    scaled = points_of(proxy[None], 3 * proxy + 2, 5 * gold - 1, (20,))[0]
    assert scaled["gap"] == pytest.approx(last["gap"])
    assert points_of(proxy[None], proxy, np.ones_like(gold), (20,))[0]["gap"] is None


def test_wins_over_one_head_are_averaged_over_heads():
    heads = np.stack([pool(seed, samples=16)[0] for seed in range(3)])
    gold = pool(9, samples=16)[1]
    mean = heads.mean(axis=0)
    point = points_of(heads, mean, gold, (8,))[0]
    each = [best_of_n_win_rate(mean, head, gold, [8]).mean() for head in heads]
    assert point["win_rate"] == pytest.approx(np.mean(each))


def test_one_prompt_has_no_standard_error():
    proxy, gold = pool(prompts=1)
    assert points_of(proxy[None], proxy, gold, (2,))[0]["gold_se"] is None


def test_counts_are_powers_of_two_and_the_whole_pool():
    assert BestOfN(samples=8).counts == (1, 2, 4, 8)
    assert BestOfN(samples=10).counts == (1, 2, 4, 8, 10)
    assert BestOfN(samples=10, ns=(3, 9)).counts == (3, 9)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"samples": 8, "ns": (2, 9)}, "raise samples"),
        ({"ns": (4, 2)}, "ascend"),
        ({"ns": ()}, "at least 1"),
        ({"ns": (0, 2)}, "greater"),
        ({"samples": 1}, "greater"),
    ],
)
def test_settings_that_no_pool_can_meet_are_refused(settings, word):
    with pytest.raises(ValidationError, match=word):
        BestOfN(**settings)
