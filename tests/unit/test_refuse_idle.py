"""What could not act in a run is refused before it starts, in a line that says how to mend it."""

import math
from typing import get_args

import pytest
from pydantic import ValidationError

from framework.gold_turn import GoldTurn
from framework.kl import Adaptive, Budget, Fixed, KlController, Stop
from framework.methods import Online

STEPS, PROMPTS, ROLLOUTS = 160, 16, 64


@pytest.mark.parametrize(
    ("controller", "said"),
    [
        (Budget(gain=1e-15), "train.kl.gain=1e-15: over the 10240 sequences of this run"),
        (Budget(max_step=1e-15), "train.kl.max_step=1e-15: over"),
        (
            Budget(initial_coef=1e-36, min_coef=1e-36),
            "train.kl.initial_coef=1e-36: in this run the coefficient can come to",
        ),
        (
            Budget(initial_coef=1e-9, min_coef=1e-10, max_coef=1e-8),
            "can come to 1e-08 at most, at which 8 nats cost 8e-08 reward units",
        ),
        (Adaptive(horizon=1e12), "train.kl.horizon=1e+12: over"),
        (Adaptive(initial_coef=1e-36), "train.kl.initial_coef=1e-36: in this run"),
    ],
)
def test_a_controller_that_steers_nothing_is_refused(controller, said):
    with pytest.raises(ValueError) as raised:
        controller.refuse_idle(STEPS, ROLLOUTS)
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_step": 1e5}, "less than or equal to 10"),
        ({"initial_coef": 0.1, "min_coef": 0.1, "max_coef": 0.1000001}, "max_coef=0.1 lie too close"),
    ],
)
def test_bounds_that_leave_no_room_are_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        Budget(**settings)


@pytest.mark.parametrize(
    ("controller", "steps"),
    [
        (Fixed(coef=0.0), 1),
        (Stop(), 1),
        (Budget(), 1),
        (Budget(budget=1e-3), STEPS),
        (Budget(gain=1e4, max_step=10), STEPS),
        (Budget(gain=1e-6, lead_steps=1e5), STEPS),  # the slope alone steers
        (Adaptive(target=1e-3), STEPS),
        (Adaptive(horizon=1e-3), STEPS),
    ],
)
def test_a_controller_that_steers_is_accepted(controller, steps):
    controller.refuse_idle(steps, ROLLOUTS)


@pytest.mark.parametrize(
    ("measured", "prompts", "said"),
    [
        (4, PROMPTS, "this run makes 4, too few for two looks: measure gold at 20 steps or more (train.gold_at"),
        (19, PROMPTS, "this run makes 19, too few for two looks"),
        (STEPS, 1, "set train.prompts_per_step >= 2"),
    ],
)
def test_a_test_of_gold_that_can_never_stop_a_run_is_refused(measured, prompts, said):
    with pytest.raises(ValueError) as raised:
        GoldTurn().refuse_idle(measured, prompts)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_a_test_of_gold_with_two_looks_is_accepted():
    GoldTurn().refuse_idle(20, 2)
    GoldTurn(measurements=2).refuse_idle(4, 2)


@pytest.mark.parametrize(
    ("every", "at", "steps"),
    [(1, (), range(160)), (7, (), [*range(0, 160, 7), 159]), (500, (), [0, 159]), (7, (3, 5), [3, 5])],
)
def test_gold_steps_are_those_at_which_gold_is_due(every, at, steps):
    train = Online(steps=160, gold_every=every, gold_at=at)
    assert train.gold_steps == tuple(steps)
    assert [step for step in range(160) if train.gold_due(step)] == list(steps)


@pytest.mark.parametrize("member", get_args(get_args(KlController)[0]))
def test_what_sets_kl_is_the_set_point(member):
    controller = member()
    aims = [getattr(controller, name) for name in controller.sets_kl]
    assert aims == ([] if controller.set_point is None else [controller.set_point])


@pytest.mark.parametrize("controller", [Budget(gain=0.01), Budget(max_step=0.01), Adaptive(), Adaptive(horizon=10)])
def test_no_run_moves_a_coefficient_further_than_its_most_change(controller):
    state, moved = controller.start(), 0.0
    for step in range(30):
        before, state = state, controller.next(state, 0.0 if step == 0 else 1e6, 64)
        moved += max(math.log(state.coef / before.coef), 0.0)
    most = controller.most_change(30, 64)
    assert 0.5 * most < moved <= most + 1e-12
