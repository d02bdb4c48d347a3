"""Controllers and rules that could not act in a run are refused before it starts."""

import math
from typing import TYPE_CHECKING

from framework.gold_turn import GoldTurn
from framework.kl import Adaptive, Budget
from framework.schedule import gold_steps

if TYPE_CHECKING:
    from framework.config import Config

CAN_ACT = 1e-4
"""Nepers by which a steered coefficient must be able to move within a run, and reward units that it must be able to cost."""


def assert_can_act(cfg: "Config") -> None:
    """Refuse a KL controller that steers nothing in this run, and a test of gold that can never stop it.

    Raises:
        ValueError: which one, why, and what to change.
    """
    if isinstance(cfg.kl, Adaptive | Budget):
        _assert_steers(cfg.kl, cfg.steps, cfg.rollouts)
    if cfg.stop_at_gold_turn is not None:
        _assert_can_stop(cfg.stop_at_gold_turn, len(gold_steps(cfg)), cfg.prompts_per_step)


def _assert_steers(kl: Adaptive | Budget, steps: int, rollouts: int) -> None:
    most = kl.most_change(steps, rollouts)
    if most < CAN_ACT:
        if isinstance(kl, Adaptive):
            slow, mend = f"kl.horizon={kl.horizon:g}", "lower it"
        elif steps * kl.max_step <= most:
            slow, mend = f"kl.max_step={kl.max_step:g}", "raise it"
        else:
            slow, mend = f"kl.gain={kl.gain:g}", "raise it"
        raise ValueError(
            f"{slow}: over the {steps * rollouts} sequences of this run the coefficient can move by "
            f"{most:.3%} at most, which steers nothing: {mend}"
        )
    # Nobody trains at under 1e-4 nats for long: below one nat, what a nat costs is what counts.
    coef, nats = kl.start().coef * math.exp(min(most, 700.0)), max(kl.set_point or 0.0, 1.0)
    highest = min(coef, kl.bounds[1]) if isinstance(kl, Budget) else coef
    if highest * nats < CAN_ACT:
        raise ValueError(
            f"kl.initial_coef={kl.start().coef:g}: in this run the coefficient can come to {highest:.3g} at most, at "
            f"which {nats:g} nats cost {highest * nats:.3g} reward units, which steers nothing: raise it"
        )


def _assert_can_stop(rule: GoldTurn, measured: int, prompts: int) -> None:
    if prompts < 2:
        raise ValueError(
            "stop_at_gold_turn: one prompt a step does not tell how much gold varies: set prompts_per_step >= 2"
        )
    if measured < 2 * rule.measurements:
        raise ValueError(
            f"stop_at_gold_turn compares looks of {rule.measurements} gold measurements, and this run makes {measured}, "
            f"too few for two looks: measure gold at {2 * rule.measurements} steps or more (gold_at, gold_every, steps), "
            "or lower stop_at_gold_turn.measurements"
        )
