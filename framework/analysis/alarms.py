"""Warnings that need no gold, and how far ahead of gold's turn they came in runs that have it. A signal's alarm is a
one-sided CUSUM chart (Page 1954, Biometrika 41) on values standardised by the signal's own first steps. It says that the
signal has moved; what that is worth only runs with gold can tell. Sizes here: `steps` logged steps of one run. NaN stands
where a signal was not measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from framework.measure import Curve, Outcome, moving_mean, outcome_of

Direction = Literal["up", "down", "stronger"]
"""Which way a signal moves when things go wrong; `stronger` is away from zero on either side."""

BASELINE = 10  # measured steps whose mean and standard deviation the later ones are standardised by
ALLOWANCE = 1.0
"""Standard deviations a step may lie above the baseline unpunished: half of the shift of 2 that is looked for."""
CAP = 3.0  # standard deviations at which one step's value is cut, so that no odd batch raises an alarm by itself
LIMIT = 11.0
"""Sum of excesses at which the alarm is raised.

Found by simulation. Of runs of 200 steps whose signal does not drift, 5% are alarmed where neighbouring steps correlate
by 0.2, 2% where they do not correlate, 8% at 0.3. A rise of 2 standard deviations over 20 steps is caught in 99% of runs
that were still for 30 steps, in 90% of those in which it began at step 0, in the baseline itself.
"""


@dataclass(frozen=True)
class Signal:
    """A figure of metrics.jsonl that may warn."""

    name: str
    direction: Direction
    meaning: str  # goes on "than in the first steps"
    least_spread: float = 0.0  # standard deviation that the baseline is taken to have at least, in the signal's unit


SIGNALS = (
    Signal("disagreement", "up", "the heads disagree more"),
    Signal("head_correlation", "down", "the heads rank responses less alike"),
    Signal("length_correlation", "stronger", "reward goes more with length"),
    Signal("feature_distance", "up", "responses lie farther from what the reward model was fitted to"),
    # Where all responses end, the baseline does not vary at all: one cut response in a step is no alarm yet.
    Signal("ended", "down", "fewer responses end by themselves", least_spread=0.02),
)
CONTROL = Signal("kl_nats", "up", "the policy is farther from the initial one")
"""Every signal moves as KL grows: one that tells no more than this tells nothing."""


def first_alarm(values: Float[np.ndarray, "steps"], direction: Direction, least_spread: float = 0.0) -> int | None:
    """Index at which the alarm is first raised; None where it is not, or nothing follows the baseline. It depends on the
    values up to that index alone, so the answer is the same in the run and after it. With z the standardised values,
    S_t = max(0, S_{t-1} + min(z_t, CAP) - ALLOWANCE) and the alarm is S_t > LIMIT."""
    measured = np.flatnonzero(np.isfinite(values))
    signed = {"up": 1.0, "down": -1.0, "stronger": np.sign(values[measured])}[direction] * values[measured]
    start = signed[:BASELINE]
    if len(signed) <= BASELINE:
        return None
    # A signal that stood still must not be alarmed by rounding.
    spread = max(start.std(ddof=1), least_spread, 1e-6 * np.abs(start).max(), 1e-12)
    z = ((signed[BASELINE:] - start.mean()) / spread).clip(-CAP, CAP)
    total = np.concatenate([[0.0], np.cumsum(z - ALLOWANCE)])
    raised = np.flatnonzero(total - np.minimum.accumulate(total) > LIMIT)
    return int(measured[BASELINE - 1 + raised[0]]) if len(raised) else None


def warnings_of(records: Sequence[Mapping[str, Any]]) -> dict[str, int | None]:
    """For each of `SIGNALS` the step at which its alarm was first raised, from a run's records so far."""
    raised: dict[str, int | None] = {}
    for signal in SIGNALS:
        values = [record.get(signal.name) for record in records]
        index = first_alarm(np.array(values, dtype=float), signal.direction, signal.least_spread)
        raised[signal.name] = None if index is None else int(records[index]["step"])
    return raised


@dataclass(frozen=True)
class AlarmLead:
    """What one signal's alarm was worth in the runs of one curve that have it, and gold with its standard error."""

    curve: str
    signal: str
    num_turned: int  # runs whose gold rose and then fell, by `Outcome.turned_over`
    num_ahead: int  # of those: alarmed at or before the step of gold's peak
    num_late: int  # of those: alarmed after it; the remaining ones were never alarmed
    lead_steps: float | None
    """Median over turned and alarmed runs of peak less alarm, in steps: negative is late. None without such runs."""
    lead_nats: float | None  # the same of smoothed KL, in nats per sequence
    num_unturned: int
    num_false: int  # of the unturned: alarmed all the same


def alarm_leads(runs: Mapping[str, Sequence[Curve]]) -> list[AlarmLead]:
    """For each curve name one record per signal, and one for the control, from the runs of each."""
    outcomes = {curve: [(run, outcome_of(run)) for run in members] for curve, members in runs.items()}
    return [_lead(curve, signal, outcomes[curve]) for curve in runs for signal in (*SIGNALS, CONTROL)]


def _lead(curve: str, signal: Signal, runs: Sequence[tuple[Curve, Outcome]]) -> AlarmLead:
    known = [(run, outcome) for run, outcome in runs if _can_tell(run, outcome, signal)]
    steps, nats, num_false = [], [], 0
    for run, own in known:
        alarm = first_alarm(run.series(signal.name), signal.direction, signal.least_spread)
        num_false += alarm is not None and not own.turned_over
        if own.turned_over and alarm is not None and own.gold_peak_at is not None:
            steps.append(own.gold_peak_at - float(run.position[alarm]))
            at_peak = math.nan if own.kl_nats_at_gold_peak is None else own.kl_nats_at_gold_peak
            nats.append(at_peak - float(moving_mean(run.series("kl_nats"))[alarm]))
    turned, ahead = sum(own.turned_over for _, own in known), sum(lead >= 0 for lead in steps)
    leads = ahead, len(steps) - ahead, _median(steps), _median(nats)
    return AlarmLead(curve, signal.name, turned, *leads, len(known) - turned, num_false)


def _can_tell(run: Curve, outcome: Outcome, signal: Signal) -> bool:
    """Whether the run has gold with its errors, and a signal that varies: the disagreement of one head is 0 throughout."""
    gold, error, values = (run.series(name) for name in ("gold", "gold_se", signal.name))
    measured, known = np.isfinite(gold), values[np.isfinite(values)]
    # A table from elsewhere may number no steps, and then there is no place of the peak.
    has_gold = outcome.gold_peak_at is not None and bool(np.isfinite(error[measured]).all())
    return has_gold and len(known) > 0 and bool(np.ptp(known) > 0)


def _median(values: Sequence[float]) -> float | None:
    known = [value for value in values if math.isfinite(value)]
    return float(np.median(known)) if known else None
