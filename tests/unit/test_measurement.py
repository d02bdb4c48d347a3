"""What is measured of a batch: figures by hand, in the order of the log, and nothing that an update would have to tell."""

from dataclasses import replace

import pytest
import torch

from framework.measurement import ROLLOUT_SCHEMA, Measurement
from framework.types import Scores


@pytest.fixture
def measure(make_rollout):
    """A measurement of two responses, of 3 tokens and of 1."""

    def build(group=(0, 1), gold=(0.5, 1.5), exact_kl=None, encodings=2):
        mask = torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
        rollout = replace(
            make_rollout(mask), step=7, logprobs=torch.full((2, 3), -1.0) * mask, group=torch.tensor(group)
        )
        reference = torch.tensor([[-1.5, -1.0, -1.5], [-4.0, 0.0, 0.0]])
        values = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
        scores = Scores(values, 0, torch.tensor([[1.0, 2.0], [3.0, 6.0]])[:encodings])
        return Measurement(
            rollout,
            reference,
            scores,
            proxy=torch.tensor([2.0, 4.0]),
            gold=None if gold is None else torch.tensor(gold),
            exact_kl=None if exact_kl is None else torch.tensor(exact_kl),
        )

    return build


def test_figures_by_hand(measure):
    figures = measure(exact_kl=(1.0, 2.0)).figures()
    assert figures["proxy"] == 3.0 and figures["heads"] == [0.5, 2.5, 4.5]
    assert figures["disagreement"] == pytest.approx((8 / 3) ** 0.5)  # population deviation of 0, 2, 4
    assert figures["head_correlation"] == pytest.approx(1.0)
    assert figures["length_correlation"] == pytest.approx(-1.0)
    assert figures["feature_distance"] == 3.0
    assert (figures["gold"], figures["gold_se"]) == (1.0, pytest.approx(0.5))
    assert (figures["kl_nats"], figures["kl_nats_se"]) == (2.0, pytest.approx(1.0))  # of 1 and 3 nats
    assert figures["kl_per_token"] == 1.0 and figures["kl_exact_nats"] == 1.5
    assert figures["kl_exact_nats_se"] == pytest.approx(0.5)
    assert (figures["response_tokens"], figures["entropy"]) == (2.0, 1.0)


def test_what_was_paid_stands_in_the_order_of_the_log(measure):
    plain, paid = measure().figures(), measure().figures(torch.tensor([0.5, 0.75]), 0.05)
    assert (paid["reward"], paid["kl_coef"]) == (0.625, 0.05)
    assert {key: value for key, value in paid.items() if key not in ("reward", "kl_coef")} == plain
    assert list(paid) == [
        *("proxy", "reward", "heads", "disagreement", "head_correlation", "length_correlation", "feature_distance"),
        *("gold", "gold_se", "kl_nats", "kl_nats_se", "kl_per_token", "kl_exact_nats", "kl_exact_nats_se"),
        *("kl_coef", "response_tokens", "ended", "entropy"),
    ]  # fmt: skip


def test_what_is_not_known_is_none(measure):
    figures = measure(group=(4, 4), gold=None, encodings=0).figures()
    unknown = ("gold", "gold_se", "kl_nats_se", "feature_distance", "kl_exact_nats", "kl_exact_nats_se")
    assert [figures[name] for name in unknown] == [None] * 6


def test_rows_keep_the_proxy_and_what_was_paid_apart(measure):
    table = measure().rows(torch.tensor([0.5, 0.75]))
    assert table.schema == ROLLOUT_SCHEMA
    assert (table["proxy"].to_pylist(), table["reward"].to_pylist()) == ([2.0, 4.0], [0.5, 0.75])
    assert table["kl_nats"].to_pylist() == [1.0, 3.0] and table["tokens"].to_pylist() == [3, 1]
    assert table["scores"].to_pylist() == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
    assert table["step"].to_pylist() == [7, 7]
    bare = measure(gold=None).rows()
    assert bare["reward"].null_count == bare["gold"].null_count == 2
