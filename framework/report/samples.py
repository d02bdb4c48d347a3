"""The responses on which proxy and gold disagree most, at the start, the peak and the end of a run."""

import math
from dataclasses import dataclass
from typing import Any

from framework.analysis.curves import Run, read_rollouts, rollout_steps
from framework.analysis.summary import gold_arc

COLUMNS = ("row", "prompt", "response", "tokens", "ended", "reward", "gold", "kl_nats")


@dataclass(frozen=True)
class Sample:
    """One response to read."""

    label: str
    """Why it is shown."""
    prompt: str
    response: str
    tokens: int
    ended: bool
    reward: float
    """Reference standard deviations."""
    gold: float | None
    """The gold scorer's units."""
    kl_nats: float
    gap: float | None
    """Standardised proxy minus standardised gold, in step-0 standard deviations."""
    is_typical: bool
    """True for the median response, which is shown for comparison."""


@dataclass(frozen=True)
class Phase:
    """One moment of a run, and what it wrote then."""

    name: str
    step: int
    kl_nats: float
    samples: tuple[Sample, ...]


def sample_phases(run: Run, count: int = 3) -> list[Phase]:
    """Start, gold peak and end of the run, each with its `count` worst distinct responses and a typical one.

    Each phase is read at the kept, gold-scored step nearest to it. Without gold there is no peak and no
    gap: then the start and the end show the responses with the highest reward.
    """
    gold = run.series("gold")
    measured = {int(step) for step, value in zip(run.steps, gold, strict=True) if math.isfinite(value)}
    kept = rollout_steps(run.folder)
    scored = [step for step in kept if step in measured and run.origin is not None]
    candidates = scored or [step for step in kept if step in set(run.steps.astype(int).tolist())]
    if not candidates:
        return []
    arc = gold_arc(run)
    wanted = {"start": candidates[0], "end": candidates[-1]}
    if scored and arc is not None:
        nearest = min(scored, key=lambda step: abs(step - arc.peak_step))
        wanted = {"start": candidates[0], "peak": nearest, "end": candidates[-1]}
    kl_nats = dict(zip(run.steps.astype(int).tolist(), run.smoothed("kl_nats").tolist(), strict=True))
    return [Phase(name, step, kl_nats[step], _pick(run, step, count)) for name, step in wanted.items()]


def _pick(run: Run, step: int, count: int) -> tuple[Sample, ...]:
    rows = read_rollouts(run.folder, step, COLUMNS)
    ranked = sorted(rows, key=lambda row: (-_rank(run, row), row["row"]))
    distinct = list({(row["prompt"], row["response"]): row for row in reversed(ranked)}.values())[::-1]
    worst = distinct[:count]
    name = "gap" if _gap(run, ranked[0]) is not None else "reward"
    samples = [
        _sample(run, row, label=f"{name.title()} rank {position} of {len(rows)}")
        for position, row in enumerate(worst, start=1)
    ]
    if len(distinct) > count:
        middle = ranked[len(ranked) // 2]
        samples.append(_sample(run, middle, label=f"Typical: the median {name}", is_typical=True))
    return tuple(samples)


def _rank(run: Run, row: dict[str, Any]) -> float:
    """What the worst responses have most of: gap where gold was measured, else reward."""
    gap = _gap(run, row)
    if gap is not None:
        return gap
    return float(row["reward"]) if run.origin is None else -math.inf


def _gap(run: Run, row: dict[str, Any]) -> float | None:
    gold = _number(row["gold"])
    if run.origin is None or gold is None:
        return None
    return float(run.origin.gap(row["reward"], gold))


def _sample(run: Run, row: dict[str, Any], label: str, is_typical: bool = False) -> Sample:
    return Sample(
        label=label,
        prompt=row["prompt"],
        response=row["response"],
        tokens=row["tokens"],
        ended=row["ended"],
        reward=row["reward"],
        gold=_number(row["gold"]),
        kl_nats=row["kl_nats"],
        gap=_gap(run, row),
        is_typical=is_typical,
    )


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
