"""What every controller of the KL coefficient must keep."""

import dataclasses
import json
import math
import pickle
from itertools import pairwise
from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from framework.kl import Adaptive, Budget, Fixed, KlController, KlState, Stop

ALL = get_args(get_args(KlController)[0])
MEMBERS = pytest.mark.parametrize("member", ALL)
STEERING = pytest.mark.parametrize("member", [Adaptive, Budget])
WILD = [0.0, 1e6, -3.0, 0.1, 1e9, 5.0, 5.0, -0.2, 40.0]


def walk(controller, measurements, episodes=64):
    states = [controller.start()]
    for kl_nats in measurements:
        states.append(controller.next(states[-1], kl_nats, episodes))
    return states


@STEERING
def test_the_price_rises_above_the_set_point_and_falls_below_it(member):
    controller = member()
    for state in (controller.start(), controller.next(controller.start(), controller.set_point, 64)):
        assert controller.next(state, controller.set_point * 3, 64).coef > state.coef
        assert controller.next(state, controller.set_point / 3, 64).coef < state.coef


@STEERING
def test_stays_put_at_the_set_point(member):
    controller = member()
    states = walk(controller, [controller.set_point] * 10)
    assert {state.coef for state in states} == {controller.start().coef}


@STEERING
def test_settles_again_after_a_disturbance(member):
    controller = member()
    states = walk(controller, [controller.set_point * 2, *[controller.set_point] * 400])
    assert states[-1].coef == pytest.approx(states[-2].coef)


@MEMBERS
@pytest.mark.parametrize("episodes", [1, 64, 10**9])
def test_never_negative_and_bounded_per_step(member, episodes):
    controller = member()
    states = walk(controller, WILD * 20, episodes)
    for before, after in pairwise(states):
        assert after.coef >= 0
        assert math.isfinite(after.coef)
        assert math.exp(-0.51) * before.coef <= after.coef <= math.exp(0.51) * before.coef


def test_every_member_is_known_here():
    assert set(ALL) == {Adaptive, Budget, Fixed, Stop}


@MEMBERS
def test_only_stop_ends_a_run(member):
    states = walk(member(), WILD)
    assert any(state.spent for state in states) == (member is Stop)


@MEMBERS
def test_the_state_goes_through_json_unchanged(member):
    controller = member()
    state = walk(controller, WILD)[-1]
    restored = KlState(**json.loads(json.dumps(dataclasses.asdict(state))))
    assert restored == state
    assert controller.next(restored, 3.3, 64) == controller.next(state, 3.3, 64)


@MEMBERS
def test_next_is_pure(member):
    controller = member()
    state = controller.start()
    assert controller.next(state, 9.0, 64) == controller.next(state, 9.0, 64)
    assert state == controller.start()


@MEMBERS
def test_survives_the_wire(member):
    component = member()
    assert pickle.loads(pickle.dumps(component)) == component
    adapter = TypeAdapter(KlController)
    assert adapter.validate_json(adapter.dump_json(component)) == component


@pytest.mark.parametrize(
    ("member", "settings"),
    [
        (Fixed, {"coef": -0.1}),
        (Adaptive, {"target": 0}),
        (Adaptive, {"target": -1}),
        (Adaptive, {"horizon": 0}),
        (Adaptive, {"initial_coef": 0}),
        (Budget, {"budget": 0}),
        (Budget, {"budget": -4}),
        (Budget, {"initial_coef": 0}),
        (Budget, {"initial_coef": 20.0}),
        (Budget, {"min_coef": 0.5}),
        (Budget, {"min_coef": 0.1, "max_coef": 0.1, "initial_coef": 0.1}),
        (Stop, {"budget": 0}),
        (Stop, {"budget": -1}),
        (Stop, {"coef": -1}),
    ],
)
def test_impossible_settings_are_refused(member, settings):
    with pytest.raises(ValidationError):
        member(**settings)
