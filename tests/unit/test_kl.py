import math

import numpy as np
import pytest

from framework.kl import Adaptive, Budget, Fixed
from framework.seeding import numpy_generator


def test_fixed_never_moves():
    controller = Fixed(coef=0.0)
    assert controller.next(controller.start(), 100.0, 64).coef == 0


def test_adaptive_by_hand():
    controller = Adaptive(initial_coef=0.1, target=4.0, horizon=100)
    # 10% over target with 50 of 100 sequences: up by 5%. Far over: the error counts as 20%.
    assert controller.next(controller.start(), 4.4, 50).coef == pytest.approx(0.105)
    assert controller.next(controller.start(), 400.0, 50).coef == pytest.approx(0.11)
    assert controller.next(controller.start(), 0.0, 50).coef == pytest.approx(0.09)


def test_budget_by_hand():
    controller = Budget(budget=9.0, initial_coef=1.0, max_coef=5.0, gain=0.2, lead_steps=3.0, smoothing=0.5)
    first = controller.next(controller.start(), 12.25, 64)
    # sqrt(12.25) - sqrt(9) = 0.5, and no slope yet.
    assert first.last_error == pytest.approx(0.5)
    assert first.coef == pytest.approx(math.exp(0.2 * 0.5))
    # Error 1.0, smoothed to 0.75: slope 0.25, so 0.75 + 3 x 0.25 is expected.
    second = controller.next(first, 16.0, 64)
    assert second.last_error == pytest.approx(0.75)
    assert second.coef == pytest.approx(first.coef * math.exp(0.2 * 1.5))


def test_budget_pays_ahead_while_kl_climbs_towards_it():
    controller = Budget(budget=10.0)
    state = controller.next(controller.start(), 4.0, 64)
    assert controller.next(state, 6.0, 64).coef > state.coef


def test_budget_leaves_its_bounds_at_once():
    controller = Budget(budget=5.0, min_coef=0.01, max_coef=1.0)
    state = controller.start()
    for _ in range(200):
        state = controller.next(state, 0.0, 64)
    assert state.coef == 0.01
    for _ in range(8):
        state = controller.next(state, 10.0, 64)
    assert state.coef > 0.03


def test_noise_alone_does_not_move_the_price():
    """Steps cut off on one side only would turn noise about the set point into a drift of the price."""
    controller, draw = Budget(budget=1.0), numpy_generator(0, "noise of a simulated batch")
    state = controller.start()
    for noise in draw.normal(size=300) * 0.3:
        state = controller.next(state, 1.0 + noise, 64)
    # The noise of sqrt(KL) is half that: 300 sums of it amount to 0.1 x 0.15 x sqrt(300) = 0.3 nepers.
    assert abs(math.log(state.coef / controller.start().coef)) < 1.5


def test_default_bounds_are_costs_of_the_whole_budget():
    for budget in (0.5, 8.0, 100.0):
        controller = Budget(budget=budget)
        assert controller.start().coef * budget == pytest.approx(0.1)
        assert [bound * budget for bound in controller.bounds] == pytest.approx([0.01, 10.0])


@pytest.mark.parametrize("kl_nats", [math.nan, math.inf])
@pytest.mark.parametrize("controller", [Adaptive(), Budget()])
def test_a_measurement_that_is_no_number_is_not_steered_by(controller, kl_nats):
    with pytest.raises(AssertionError, match="KL is"):
        controller.next(controller.start(), kl_nats, 64)


def simulate(controller, strength, rate, steps=200, sequences=32):
    """KL of a simulated policy: sqrt(KL) moves at most `rate` per step towards strength / coefficient.

    That is where a Gaussian policy settles under a linear reward; k1 over `sequences` samples has standard
    error sqrt(2 KL / sequences).
    """
    draw = numpy_generator(0, "simulated policy", str(strength), str(rate))
    state, distance, history = controller.start(), 0.0, []
    for _ in range(steps):
        move = 0.15 * (strength / state.coef - distance)
        distance += min(max(move, -rate), rate)
        history.append(distance**2)
        noise = draw.normal() * math.sqrt(2 * distance**2 / sequences)
        state = controller.next(state, distance**2 + noise, sequences)
    return np.array(history)


@pytest.mark.parametrize("budget", [3.0, 8.0, 16.0])
@pytest.mark.parametrize("strength", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("rate", [0.05, 0.15])
def test_budget_reaches_and_holds_its_nats(budget, strength, rate):
    history = simulate(Budget(budget=budget), strength, rate)
    assert history[-40:].mean() == pytest.approx(budget, rel=0.1)
