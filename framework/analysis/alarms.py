"""Warnings that need no gold, and how far ahead of gold's turn they came in runs that have it.

A signal's alarm is a one-sided CUSUM chart (Page 1954, Biometrika 41) on values standardised by the signal's
own first steps. An alarm says that the signal has moved; what that is worth only runs with gold can tell.
Sizes here: `steps` logged steps of one run. NaN stands where a signal was not measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float

from framework.analysis.curves import moving_mean
from framework.analysis.summary import arc_of

Direction = Literal["up", "down", "stronger"]
"""Which way a signal moves when things go wrong; `stronger` is away from zero on either side."""

BASELINE = 10
"""Measured steps whose mean and standard deviation the later ones are standardised by."""
ALLOWANCE = 1.0
"""Standard deviations a step may lie above the baseline unpunished: half of the shift of 2 that is looked for."""
CAP = 3.0
"""Standard deviations at which one step's value is cut, so that no odd batch raises an alarm by itself."""
LIMIT = 11.0
"""Sum of excesses at which the alarm is raised.

Found by simulation, so that the error of ten steps' mean and deviation is counted. Of runs of 200 steps whose
signal does not drift, 5% are alarmed where neighbouring steps correlate by 0.2, 2% where they do not correlate,
8% at 0.3. A rise of 2 standard deviations over 20 steps is caught in 99% of runs that were still for 30 steps,
in 90% of those in which it began at step 0, in the baseline itself.
"""


@dataclass(frozen=True)
class Signal:
    """A figure of metrics.jsonl that may warn."""

    name: str
    direction: Direction
    meaning: str
    """What an alarm says, as a sentence that goes on "than in the first steps"."""


SIGNALS = (
    Signal("disagreement", "up", "the heads disagree more"),
    Signal("head_correlation", "down", "the heads rank responses less alike"),
    Signal("length_correlation", "stronger", "reward goes more with length"),
    Signal("feature_distance", "up", "responses lie farther from what the reward model was fitted to"),
)
CONTROL = Signal("kl_nats", "up", "the policy is farther from the initial one")
"""Every signal moves as KL grows: one that tells no more than this tells nothing."""


def first_alarm(values: Float[np.ndarray, "steps"], direction: Direction) -> int | None:
    """Index at which the alarm is first raised; None where it is not, or nothing follows the baseline.

    It depends on the values up to that index alone, so the answer is the same in the run and after it. With z
    the standardised values, S_t = max(0, S_{t-1} + min(z_t, CAP) - ALLOWANCE) and the alarm is S_t > LIMIT.
    """
    measured = np.flatnonzero(np.isfinite(values))
    signed = {"up": 1.0, "down": -1.0, "stronger": np.sign(values[measured])}[direction] * values[measured]
    start = signed[:BASELINE]
    if len(signed) <= BASELINE:
        return None
    # A signal that stood still must not be alarmed by rounding.
    spread = max(start.std(ddof=1), 1e-6 * np.abs(start).max(), 1e-12)
    z = ((signed[BASELINE:] - start.mean()) / spread).clip(-CAP, CAP)
    total = np.concatenate([[0.0], np.cumsum(z - ALLOWANCE)])
    raised = np.flatnonzero(total - np.minimum.accumulate(total) > LIMIT)
    return int(measured[BASELINE - 1 + raised[0]]) if len(raised) else None


def warnings_of(records: Sequence[Mapping[str, Any]]) -> dict[str, int | None]:
    """For each of `SIGNALS` the step at which its alarm was first raised, from a run's records so far."""
    raised: dict[str, int | None] = {}
    for signal in SIGNALS:
        values = (record.get(signal.name) for record in records)
        index = first_alarm(
            np.array([math.nan if value is None else value for value in values], dtype=float),
            signal.direction,
        )
        raised[signal.name] = None if index is None else int(records[index]["step"])
    return raised


class HasSeries(Protocol):
    """A run by its metrics: `curves.Run`, or a trial's rows in a sweep's table."""

    def series(self, name: str) -> Float[np.ndarray, "steps"]:
        """One metric at every logged step; NaN where it was not measured."""


@dataclass(frozen=True)
class AlarmLead:
    """What one signal's alarm was worth in the runs of one method.

    Runs without the signal, without gold or without gold's standard error are left out: whether gold turned is a
    question of its noise.
    """

    method: str
    signal: str
    """A name of `SIGNALS`, or that of `CONTROL`."""
    num_turned: int
    """Runs whose gold rose and then fell, by `GoldArc.turned_over`."""
    num_ahead: int
    """Of those: alarmed at or before the step of gold's peak."""
    num_late: int
    """Of those: alarmed after it. The remaining ones were never alarmed."""
    lead_steps: float | None
    """Median over turned and alarmed runs of peak less alarm, in steps: negative is late. None without such runs."""
    lead_nats: float | None
    """The same of smoothed KL: nats per sequence that were still to be spent."""
    num_unturned: int
    num_false: int
    """Of the unturned: alarmed all the same."""

    def to_json(self) -> dict[str, Any]:
        """A plain record."""
        return asdict(self)


def alarm_leads(runs: Mapping[str, Sequence[HasSeries]]) -> list[AlarmLead]:
    """For each method one record per signal, and one for the control, from the runs of each method.

    Of a sweep: `alarm_leads({m: table.curves_of(m, "rl") for m in table.methods})`.
    """
    return [
        _lead(method, signal, [_outcome(run, signal) for run in members])
        for method, members in runs.items()
        for signal in (*SIGNALS, CONTROL)
    ]


@dataclass(frozen=True)
class _Outcome:
    """A run with gold in which a signal was measured."""

    turned: bool
    alarmed: bool
    lead_steps: float = math.nan
    lead_nats: float = math.nan


def _outcome(run: HasSeries, signal: Signal) -> _Outcome | None:
    steps, kl, values = run.series("step"), run.series("kl_nats"), run.series(signal.name)
    gold, error = run.series("gold"), run.series("gold_se")
    arc = arc_of(steps, gold, error, kl) if np.isfinite(error[np.isfinite(gold)]).all() else None
    finite = values[np.isfinite(values)]
    # The disagreement of a single head is 0 throughout.
    if arc is None or not len(finite) or np.ptp(finite) == 0:
        return None
    alarm = first_alarm(values, signal.direction)
    if alarm is None:
        return _Outcome(arc.turned_over, alarmed=False)
    nats = math.nan if arc.kl_nats_at_peak is None else arc.kl_nats_at_peak - float(moving_mean(kl)[alarm])
    return _Outcome(arc.turned_over, True, float(arc.peak_step - steps[alarm]), nats)


def _lead(method: str, signal: Signal, outcomes: Sequence[_Outcome | None]) -> AlarmLead:
    known = [outcome for outcome in outcomes if outcome is not None]
    turned = [outcome for outcome in known if outcome.turned]
    warned = [outcome for outcome in turned if outcome.alarmed]
    ahead = sum(outcome.lead_steps >= 0 for outcome in warned)
    return AlarmLead(
        method,
        signal.name,
        num_turned=len(turned),
        num_ahead=ahead,
        num_late=len(warned) - ahead,
        lead_steps=_median([outcome.lead_steps for outcome in warned]),
        lead_nats=_median([outcome.lead_nats for outcome in warned]),
        num_unturned=len(known) - len(turned),
        num_false=sum(outcome.alarmed for outcome in known if not outcome.turned),
    )


def _median(values: Sequence[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.median(finite)) if finite else None
