"""Best-of-n against brute force over subsets and its KL against closed forms."""

import numpy as np
import pytest

from framework.analysis.best_of_n import Ranking, best_of_n_kl
from tests.golden.oracle import cases

FILE = "closed_best_of_n.json"


@pytest.mark.parametrize("case", cases(FILE, "unbiased_estimator"))
def test_curve(case):
    proxy, gold = (np.array([case["inputs"][name]]) for name in ("proxy", "gold"))
    ns, expected = case["params"]["n"], case["outputs"]
    np.testing.assert_allclose(Ranking.of(proxy).curve(gold, ns)[0], expected["gold_best_of_n"], rtol=1e-12)
    brute = expected["gold_best_of_n_brute_force"]
    np.testing.assert_allclose(Ranking.of(proxy).curve(gold, ns)[0], brute, rtol=1e-12)
    own = Ranking.of(proxy).curve(proxy, ns)[0]
    np.testing.assert_allclose(own, expected["proxy_best_of_n"], rtol=1e-12)


@pytest.mark.parametrize("case", cases(FILE, "kl_of_best_of_n"))
def test_kl(case):
    ours = [best_of_n_kl(n) for n in case["inputs"]["n"]]
    np.testing.assert_allclose(ours, case["outputs"]["kl"], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("case", cases(FILE, "kl_of_best_of_n_discrete"))
def test_kl_is_an_upper_bound_where_responses_tie(case):
    ours = np.array([best_of_n_kl(n) for n in case["outputs"]["n"]])
    np.testing.assert_allclose(ours, case["outputs"]["kl_upper_bound"], rtol=1e-12, atol=1e-15)
    assert (ours >= np.array(case["outputs"]["kl_exact"]) - 1e-12).all()
