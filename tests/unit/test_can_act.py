"""What could not act in a run is refused before it starts, in a line that says how to mend it."""

import math

import pytest

from framework.config import parse_config
from framework.errors import UserError
from framework.kl import Adaptive, Budget, KlState
from framework.schedule import gold_steps
from jobs.run_state import RunState


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"kl": {"kind": "budget", "gain": 1e-15}},
            "kl.gain=1e-15: over the 10240 sequences",
        ),
        ({"kl": {"kind": "budget", "max_step": 1e-15}}, "kl.max_step=1e-15"),
        ({"kl": {"kind": "budget", "max_step": 1e5}}, "kl.max_step=100000.0: input should be less than"),
        (
            {"kl": {"kind": "budget", "initial_coef": 0.1, "min_coef": 0.1, "max_coef": 0.1000001}},
            "kl: min_coef=0.1 and max_coef=0.1 lie too close",
        ),
        (
            {"kl": {"kind": "budget", "initial_coef": 1e-300, "min_coef": 1e-300}},
            "kl.initial_coef=1e-300: in this run the coefficient can come to",
        ),
        (
            {"kl": {"kind": "budget", "initial_coef": 1e-9, "min_coef": 1e-10, "max_coef": 1e-8}},
            "can come to 1e-08 at most, at which 8 nats cost 8e-08 reward units",
        ),
        ({"kl": {"kind": "adaptive", "horizon": 1e12}}, "kl.horizon=1e+12"),
        ({"kl": {"kind": "adaptive", "initial_coef": 1e-300}}, "kl.initial_coef=1e-300"),
        ({"stop_at_gold_turn": {}, "gold_at": [0, 50, 100, 150]}, "this run makes 4, too few for two looks"),
        ({"stop_at_gold_turn": {}, "gold_every": 50}, "this run makes 5, too few for two looks"),
        ({"stop_at_gold_turn": {}, "steps": 19}, "this run makes 19, too few for two looks"),
        ({"stop_at_gold_turn": {}, "prompts_per_step": 1}, "set prompts_per_step >= 2"),
    ],
)
def test_what_cannot_act_is_refused(settings, said):
    with pytest.raises(UserError) as raised:
        parse_config(settings)
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"kl": {"kind": "budget"}, "steps": 1},
        {"kl": {"kind": "budget", "budget": 1e-3}},
        {"kl": {"kind": "budget", "gain": 1e4, "max_step": 10}},
        {"kl": {"kind": "budget", "gain": 1e-6, "lead_steps": 1e5}},  # the slope alone steers
        {"kl": {"kind": "adaptive", "target": 1e-3}},
        {"kl": {"kind": "adaptive", "horizon": 1e-3}},
        {"stop_at_gold_turn": {}, "steps": 20},
        {"stop_at_gold_turn": {"measurements": 2}, "gold_at": [0, 50, 100, 150]},
    ],
)
def test_what_can_act_is_accepted(settings):
    parse_config(settings)


@pytest.mark.parametrize("settings", [{}, {"gold_every": 7}, {"gold_every": 500}, {"gold_at": [3, 5]}])
def test_gold_steps_are_those_at_which_a_run_measures(settings):
    cfg = parse_config(settings)
    due = [s for s in range(cfg.steps) if RunState(s, 0, KlState(0.1)).gold_due(cfg)]
    assert list(gold_steps(cfg)) == due


@pytest.mark.parametrize(
    "controller", [Budget(gain=0.01), Budget(max_step=0.01), Adaptive(), Adaptive(horizon=10)]
)
def test_no_run_moves_a_coefficient_further_than_its_most_change(controller):
    state, moved = controller.start(), 0.0
    for step in range(30):
        before, state = state, controller.next(state, 0.0 if step == 0 else 1e6, 64)
        moved += max(math.log(state.coef / before.coef), 0.0)
    most = controller.most_change(30, 64)
    assert 0.5 * most < moved <= most + 1e-12
