"""The test whether gold has turned: how often it is wrong, how soon it is right, and what it does to a run."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from framework.gold_turn import GoldState, GoldTurn
from framework.seeding import numpy_generator
from jobs.run_folder import RunContext, resume_run
from jobs.run_state import RunState
from tests.tiny import contents, make_tiny

GROUPS = torch.arange(64) // 4


def stopped_at(rule, means, seed, prompt_spread=0.5, row_spread=1.0):
    """Measurement at which the rule stops a run with these true means; rows of one prompt share an offset."""
    draw = numpy_generator(seed, "gold of a simulated run")
    state = GoldState()
    for step, mean in enumerate(means):
        offsets = np.repeat(draw.normal(size=16) * prompt_spread, 4)
        gold = torch.tensor(mean + offsets + draw.normal(size=64) * row_spread)
        state = rule.next(state, gold, GROUPS)
        if state.turned:
            return step
    return None


def _stops(rule, gold):
    """Whether the rule stops a run with this gold: one row per measurement, one column per prompt."""
    state, group = GoldState(), torch.arange(gold.shape[1])
    for row in torch.as_tensor(gold):
        state = rule.next(state, row, group)
        if state.turned:
            return True
    return False


def test_by_hand():
    rule = GoldTurn(confidence=0.95, measurements=1)
    # Prompt means 1 and 3: mean 2, sample variance 2, variance of the mean 1, one degree of freedom.
    gold, group = torch.tensor([0.0, 2.0, 2.0, 4.0]), torch.tensor([7, 7, 9, 9])
    state = rule.next(GoldState(), gold, group)
    assert (state.means, state.degrees) == ((2.0,), (1,))
    assert state.variances == pytest.approx((1.0,))
    # Second look, one comparison: level 0.05 x 6 / pi^2 = 0.03040. With two degrees of freedom the quantile is
    # t = (1 - 2a) / sqrt(2a (1 - a)) = 3.8685; the error of the difference is sqrt(2).
    edge = 3.8685 * math.sqrt(2)
    assert not rule.next(state, gold - edge + 0.01, group).turned
    assert rule.next(state, gold - edge - 0.01, group).turned


def test_a_look_that_varies_more_than_the_others_keeps_its_own_variance():
    rule, group = GoldTurn(measurements=1), torch.arange(2)
    state = GoldState()
    for _ in range(5):
        state = rule.next(state, torch.tensor([9.0, 11.0]), group)
    # Six looks, five comparisons at level 0.05 x 6 / (5 pi)^2 / 5 = 2.43e-4: t with six degrees of freedom is 6.823.
    # The last look's variance is 25 and the pooled one 5: the error of the difference is sqrt(25 + 5): the edge is 37.373.
    assert not rule.next(state, torch.tensor([-5.0, 5.0]) + 10 - 37.36, group).turned
    assert rule.next(state, torch.tensor([-5.0, 5.0]) + 10 - 37.39, group).turned


@pytest.mark.parametrize("kind", ["normal", "whole numbers"])
@pytest.mark.parametrize(("measurements", "runs"), [(1, 40), (10, 20)])
@pytest.mark.parametrize("prompts", [2, 4, 8, 16])
def test_flat_gold_of_few_prompts_is_seldom_stopped(kind, measurements, runs, prompts):
    rule, wrong = GoldTurn(measurements=measurements), 0
    for seed in range(runs):
        draw = numpy_generator(seed, f"flat gold, {kind}")
        shape = (80, prompts)
        gold = draw.normal(size=shape) if kind == "normal" else draw.integers(0, 4, shape).astype(float)
        wrong += _stops(rule, gold)
    # 5% may be stopped; more than the 99% quantile of that would be strange.
    assert wrong <= binom.ppf(0.99, runs, 0.05)


def test_gold_that_has_not_varied_yet_stops_nothing():
    assert not _stops(GoldTurn(measurements=1), np.array([[3.0, 3.0], [2.0, 2.0], [1.0, 1.0]]))


@pytest.mark.parametrize(("measurements", "prompts"), [(1, 8), (1, 16), (3, 4), (10, 2), (10, 4)])
def test_a_clear_fall_is_seen_with_few_prompts(measurements, prompts):
    hump = np.concatenate([np.linspace(0, 1.5, 60), np.linspace(1.5, -1.5, 100)])
    for seed in range(10):
        draw = numpy_generator(seed, "a fall seen by few prompts")
        assert _stops(GoldTurn(measurements=measurements), hump[:, None] + draw.normal(size=(160, prompts)) * 0.7)


def test_gold_that_never_falls_is_seldom_stopped():
    rule = GoldTurn(confidence=0.9)
    wrong = sum(stopped_at(rule, np.zeros(160), seed) is not None for seed in range(200))
    assert wrong <= 0.1 * 200


def test_gold_that_rises_is_never_stopped_here():
    assert not any(stopped_at(GoldTurn(), np.linspace(0, 2, 160), seed) for seed in range(50))


def test_a_turn_is_seen_before_all_is_lost():
    hump = np.concatenate([np.linspace(0, 1.5, 60), np.linspace(1.5, -1.5, 100)])
    stops = [stopped_at(GoldTurn(), hump, seed) for seed in range(50)]
    assert all(stop is not None and 60 < stop < 110 for stop in stops)


def test_one_prompt_tells_no_error_and_stops_nothing():
    rule = GoldTurn(measurements=1)
    state = rule.next(GoldState(), torch.tensor([100.0, 101.0]), torch.tensor([0, 0]))
    assert not rule.next(state, torch.tensor([-100.0, -99.0]), torch.tensor([0, 0])).turned


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


RULE = {"confidence": 0.51, "measurements": 1}


class _FallingGold:
    """Gold that falls by one each time it is asked."""

    def __init__(self):
        self.level = 0.0

    def score(self, prompts, responses):
        from framework.types import Scores

        self.level -= 1.0
        return Scores(torch.randn(len(prompts)) * 0.01 + self.level)


def test_a_run_ends_where_gold_has_turned(tiny, tmp_path, monkeypatch):
    from framework.gold.rule import Rule

    monkeypatch.setattr(Rule, "build", lambda self, device: _FallingGold())
    result = tiny.run(tmp_path / "train", train={"stop_at_gold_turn": RULE, "gold_every": 1})
    assert result.ended == result.summary["ended"] == "gold turned"
    assert len((tmp_path / "train/metrics.jsonl").read_text().splitlines()) == 2
    before = contents(tmp_path / "train")
    assert resume_run(tmp_path / "train", RunContext()).summary["ended"] == "gold turned"
    assert contents(tmp_path / "train") == before


def test_a_run_ends_where_its_budget_is_spent(tiny, tmp_path):
    changes = {
        "kl": {"kind": "stop", "budget": 1e-4, "smoothing": 0.0},
        "update": {"optimizer": {"lr": 0.01, "warmup_steps": 0}},
    }
    result = tiny.run(tmp_path / "train", train=changes)
    assert result.summary["ended"] == "KL budget spent"
    steps = [json.loads(line) for line in (tmp_path / "train/metrics.jsonl").read_text().splitlines()]
    assert len(steps) < tiny.cfg.train.steps
    assert steps[-1]["kl_nats"] >= 1e-4 > max(step["kl_nats"] for step in steps[:-1])
    assert {step["kl_coef"] for step in steps} == {0.0}


def test_gold_is_measured_at_the_steps_asked_for_and_no_others(tiny, tmp_path):
    tiny.run(tmp_path / "train", train={"gold_at": [0, 3]})
    steps = [json.loads(line) for line in (tmp_path / "train/metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps if step["gold"] is not None] == [0, 3]


@pytest.mark.parametrize(
    "changes", [{"kl": {"kind": "budget", "budget": 2.0}}, {"stop_at_gold_turn": {"measurements": 2}, "gold_every": 1}]
)
def test_controllers_and_rules_are_resumed_to_the_bit(tiny, tmp_path, changes):
    tiny.run(tmp_path / "whole/train", train=changes)
    asked = iter(range(100))
    stopped = RunContext(stop_asked=lambda: next(asked) >= 2 * 3 - 1)
    assert tiny.run(tmp_path / "parts/train", stopped, train=changes).ended is None
    assert resume_run(tmp_path / "parts/train", RunContext()).ended
    assert contents(tmp_path / "parts/train") == contents(tmp_path / "whole/train")


def test_the_state_goes_through_json_unchanged(tiny):
    train = tiny.but(train={"stop_at_gold_turn": {"measurements": 2}}).train
    state = RunState.start(train)
    for value in (0.1, 0.7, 0.3):
        gold = train.stop_at_gold_turn.next(state.gold, torch.tensor([value, value * 3]), torch.tensor([0, 1]))
        state = RunState(state.step + 1, state.policy_version, state.kl, gold)
    assert RunState.from_json(json.loads(json.dumps(state.to_json()))) == state
