"""The runs of an experiment: variants x conditions x points x seeds. A study is a plan without a grid, a sweep one with."""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from framework.analysis.records import RunRecord
from framework.config import Config, parse_config
from framework.errors import UserError
from framework.overrides import apply_overrides
from framework.sweep import Asha, canonical

LONGEST_NAME = 80
LONGEST_VALUE = 24


@dataclass(frozen=True)
class PlannedRun:
    """One run of an experiment, before anything is known of it but its place in the plan."""

    record: RunRecord
    cfg: Config
    """Its own configuration: nothing of the experiment around it is left in it."""

    @property
    def place(self) -> tuple[str, int]:
        """Its name in its seed, and the seed."""
        return self.record.run, self.record.seed

    @property
    def id(self) -> str:
        """Its name among all runs."""
        return f"{self.record.run}-seed_{self.record.seed}"


def num_runs(cfg: Config) -> int:
    """How many runs an experiment has, told without making them."""
    arms = max(1, len(cfg.variants)) * max(1, len(cfg.conditions))
    return arms * cfg.sweep.num_points * len(cfg.seeds)


def plan_of(cfg: Config) -> list[PlannedRun]:
    """The runs of an experiment, seed by seed; within a seed arm by arm and point by point.

    A UserError for a swept key that is not known where it is set, a bad value, two runs with one name, or a scheduler
    with nothing to compare.
    """
    seed = cfg.seeds[0]
    alone = {"seed": seed, "seeds": [seed], "variants": {}, "conditions": {}, "baseline": None, "sweep": {}}
    base = cfg.model_dump(mode="json") | alone
    arms = itertools.product(cfg.conditions or [""], cfg.variants or ["run"])
    runs = [run for arm in arms for run in _runs_of_arm(cfg, base, *arm)]
    if repeated := [id for id, count in Counter(run.id for run in runs).items() if count > 1]:
        shared = f"two runs would share the folder {repeated[0]}"
        raise UserError(f"{shared}: rename a variant or a condition, or write one value")
    if cfg.sweep.scheduler.kind == "asha":
        _assert_comparable(runs)
        _assert_halves(cfg.sweep.scheduler, runs)
    return sorted(runs, key=lambda run: cfg.seeds.index(run.record.seed))


def _runs_of_arm(cfg: Config, base: Mapping[str, Any], condition: str, variant: str) -> Iterator[PlannedRun]:
    """The runs of a variant under a condition; `base` is the configuration without the experiment around it."""
    named = [("conditions", condition), ("variants", variant)]
    within = ", ".join(f"{section}.{name}" for section, name in named if name in getattr(cfg, section))
    overrides = _combined(cfg.conditions.get(condition, {}), cfg.variants.get(variant, {}))
    tree, arm = apply_overrides(base, overrides), "-".join(filter(None, (condition, variant)))
    swept = cfg.sweep.model_dump(mode="json")  # told, as a point may bring what a variant needs
    parse_config(tree | {"sweep": swept}, within or "configuration")  # a mistake in a variant is not one of a point
    points, short = cfg.sweep.all_points(), _short_keys(cfg.sweep.keys)
    for point in points:
        first = parse_config(apply_overrides(tree, point), f"sweep, {canonical(point)}" if point else "configuration")
        along = {f"train.{key}" for key in first.train.sets_kl}
        apart = [key for key in cfg.sweep.keys if key not in along and _varies(key, points)]
        record = RunRecord(
            run=_name(arm, {short[key]: value for key, value in point.items()}),
            curve=", ".join([arm, *(f"{key}={_plain(point[key])}" for key in apart if key in point)]),
            condition=condition,
            variant=variant,
            point=", ".join(f"{key}={_plain(value)}" for key, value in point.items()),
            seed=cfg.seeds[0],
            method=first.train.kind,
            budget=first.train.budget,
            axis=first.train.axis,
            settings=point,
        )
        for seed in cfg.seeds:
            own = first.model_copy(update={"seed": seed, "seeds": (seed,)})
            yield PlannedRun(replace(record, seed=seed), own)


def _combined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides that, applied once, do what `first` and then `second` would."""
    replaced = tuple(f"{key.removesuffix('.kind')}." for key in second)
    return {key: value for key, value in first.items() if not f"{key}.".startswith(replaced)} | dict(second)


def _assert_comparable(runs: Sequence[PlannedRun]) -> None:
    """Refuse to compare runs where a budget has only one curve: its seeds would be stopped against each other."""
    curves = Counter(budget for budget, _ in {(run.record.budget, run.record.curve) for run in runs})
    budget, fewest = min(curves.items(), key=lambda item: (item[1], item[0] or 0.0))
    if fewest < 2:
        alone = "runs without a budget have one" if budget is None else f"budget {budget:g} has one"
        raise UserError(
            f"sweep.scheduler.kind=asha compares the curves of each KL budget, and here {alone}: "
            "sweep another key as well, or set sweep.scheduler.kind=fifo"
        )


def _assert_halves(scheduler: Asha, runs: Sequence[PlannedRun]) -> None:
    """Refuse a scheduler that sees nothing to compare between the grace time and a run's last step."""
    for run in runs:
        method = run.cfg.train
        measured = method.gold_steps if scheduler.metric == "gold" else range(method.length)
        if not any(scheduler.grace_steps - 1 <= step < method.length - 1 for step in measured):
            raise UserError(
                f"sweep.scheduler.kind=asha: {run.record.run} measures no {scheduler.metric} from step "
                f"{scheduler.grace_steps - 1}, where the grace time ends, to before its last step {method.length - 1}, "
                "so nothing is ever stopped: lower sweep.scheduler.grace_steps, measure gold in between, or set "
                "sweep.scheduler.kind=fifo"
            )


def _varies(key: str, points: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a key makes points differ; one that a point does not set differs from any value."""
    return len({canonical(point[key]) if key in point else None for point in points}) > 1


def _short_keys(keys: Iterable[str]) -> dict[str, str]:
    """The last part of each key, or the whole of those that share it."""
    last = Counter(key.rpartition(".")[2] for key in keys)
    return {key: leaf if last[leaf := key.rpartition(".")[2]] == 1 else key.replace(".", "-") for key in keys}


def _name(arm: str, settings: Mapping[str, Any]) -> str:
    """A folder's name for an arm at a point."""
    name = "-".join([arm, *(f"{key}_{_short(value)}" for key, value in settings.items())])
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}-{_hash(name)}"


def _short(value: Any) -> str:
    """A value as part of a folder's name: itself where it is short and plain, else a hash of it."""
    text = _plain(value)
    return text if len(text) <= LONGEST_VALUE and re.fullmatch(r"[\w.+-]+", text, re.ASCII) else _hash(text)


def _plain(value: Any) -> str:
    """A value as a line of text: strings bare, anything else as JSON."""
    return value if isinstance(value, str) else canonical(value)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
