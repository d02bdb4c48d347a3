"""A sweep: every run name of a study at every point of some keys, with every seed, as trials."""

import hashlib
import itertools
import json
import math
import re
import typing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from framework.component import Component
from framework.errors import UserError
from framework.overrides import apply_overrides
from framework.schedule import gold_steps

if TYPE_CHECKING:
    from framework.config import Config

BUDGET_KEYS = ("kl.budget", "kl.target")
"""Keys whose values lie along one curve of the report; any other makes a curve of its own."""
NOT_SWEPT = (
    "seed", "seeds", "variants", "conditions", "baseline", "sweep", "backend", "cluster", "best_of_n", "score_pairs"
)  # fmt: skip
"""What is the same in all trials, or is crossed with the points anyway."""
LONGEST_NAME = 80
LONGEST_VALUE = 24


class Fifo(Component):
    """Runs every trial to its end, in order."""

    kind: Literal["fifo"] = "fifo"


class Asha(Component):
    """Stops the trials that do worst among those of one KL budget, by successive halving (arXiv 1810.05934).

    Budgets are never compared with each other: they are the axis of the curve, not candidates. Which trials
    stop depends on which are ahead, so two such sweeps need not agree.
    """

    kind: Literal["asha"] = "asha"
    metric: Literal["gold", "proxy"] = "gold"
    """What is compared; the larger is the better."""
    grace_steps: int = Field(default=20, ge=1)
    """Steps that every trial is given."""
    reduction_factor: float = Field(default=4.0, gt=1)
    """Ratio: of so many trials that come to a rung one goes on, and the next rung is so many times as far."""


Scheduler = Annotated[Fifo | Asha, Field(discriminator="kind")]


class Sweep(Component):
    """What `goldilocks sweep` varies, and how it runs the trials."""

    grid: dict[str, tuple[Any, ...]] = Field(default={})
    """Dotted keys and the values of each, all crossed; for example `kl.budget: [2, 4, 8]`."""
    points: tuple[dict[str, Any], ...] = ()
    """Instead of a grid: a list of points, each with the dotted keys that it sets."""
    limit: int = Field(default=100, ge=1)
    """Trials that are run without --yes."""
    retries: int = Field(default=1, ge=0)
    """Times that a failed trial is begun again; it goes on from its last checkpoint."""
    scheduler: Scheduler = Fifo()
    epsilon: float | None = Field(default=None, ge=0)
    """Gold units that the advised budget may lose against the best. None: a tenth of the best budget's gain."""

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if self.grid and self.points:
            raise ValueError("set either grid or points, not both")
        for key, values in self.grid.items():
            if not values:
                raise ValueError(f"grid.{key} is empty: give it at least one value, or leave it out")
            _refuse_repeated(f"grid.{key}", values)
        _refuse_repeated("points", self.points)
        if not all(self.points):
            raise ValueError("points: one of them sets no key")
        for key in self.keys:
            if key.partition(".")[0] in NOT_SWEPT:
                instead = "; give the seeds as seeds=[...]" if key in ("seed", "seeds") else ""
                raise ValueError(f"{key} cannot be swept{instead}")
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """The swept keys, in the order of their first mention."""
        return tuple(dict.fromkeys([*self.grid, *itertools.chain.from_iterable(self.points)]))

    @property
    def num_points(self) -> int:
        """How many points there are, told without making them."""
        return len(self.points) or math.prod(len(values) for values in self.grid.values())

    def all_points(self) -> list[dict[str, Any]]:
        """The settings of every point, the last key of a grid moving fastest; one empty point where none is set."""
        if self.points:
            return [dict(point) for point in self.points]
        return [
            dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())
        ]


@dataclass(frozen=True)
class Trial:
    """One run of a sweep."""

    name: str
    """Of its folder in that of its seed; the same for every seed."""
    method: str
    """The curve that it belongs to: its run name, and the values of the keys that make methods differ."""
    budget: float | None
    """Nats per sequence that its KL controller aims at; None where it aims at none."""
    seed: int
    settings: dict[str, Any]
    """The swept keys at its point."""
    cfg: "Config"
    """Its own configuration."""

    @property
    def id(self) -> str:
        """Its name among all trials."""
        return f"{self.name}-seed_{self.seed}"


def num_trials(cfg: "Config") -> int:
    """How many trials a sweep of `cfg` has, told without making them."""
    return max(1, len(cfg.study_runs())) * cfg.sweep.num_points * len(cfg.seeds)


def trials_of(cfg: "Config") -> list[Trial]:
    """The trials of a sweep, seed by seed; within a seed run name by run name and point by point.

    Raises:
        UserError: a swept key that is not known where it is set, a bad value, or a scheduler with nothing
            to compare.
    """
    from framework.config import parse_config  # which itself holds a Sweep

    points, runs = cfg.sweep.all_points(), cfg.study_runs() or {"run": {}}
    short = _short_keys(cfg.sweep.keys)
    apart = [key for key in cfg.sweep.keys if key not in BUDGET_KEYS and _varies(key, points)]
    base = {key: value for key, value in cfg.model_dump(mode="json").items() if key != "sweep"}
    trials = []
    for run, overrides in runs.items():
        tree = apply_overrides(base, overrides)
        for point in points:
            where = f"sweep, {_canonical(point)}"
            first = _parse_point(parse_config, tree | {"seed": cfg.seeds[0]}, point, where)
            method = ", ".join([run, *(f"{key}={_plain(point[key])}" for key in apart if key in point)])
            name = _name(run, {short[key]: value for key, value in point.items()})
            trials += [
                Trial(name, method, first.kl.set_point, seed, point, first.model_copy(update={"seed": seed}))
                for seed in cfg.seeds
            ]
    if cfg.sweep.scheduler.kind == "asha":
        _assert_comparable(trials)
        _assert_halves(cfg.sweep.scheduler, trials)
    repeated = [id for id, count in Counter(trial.id for trial in trials).items() if count > 1]
    if repeated:
        raise UserError(
            f"sweep: two trials would share the folder {repeated[0]}: rename a variant, or write one value"
        )
    order = {seed: index for index, seed in enumerate(cfg.seeds)}
    return sorted(trials, key=lambda trial: order[trial.seed])


def _refuse_repeated(name: str, values: Sequence[Any]) -> None:
    """Refuse a list with two equal values: their trials would be the same.

    Raises:
        ValueError: the first such value.
    """
    counts = Counter(_canonical(value) for value in values)
    repeated = next((text for text, count in counts.items() if count > 1), None)
    if repeated is not None:
        raise ValueError(f"{name} holds {repeated} twice")


def _parse_point(
    parse: typing.Callable[..., "Config"], tree: Mapping[str, Any], point: Mapping[str, Any], where: str
) -> "Config":
    """The configuration at a point; says so where a key is one of another kind of its section."""
    try:
        return parse(apply_overrides(tree, point), where=where)
    except UserError:
        kinds = {key: value for key, value in point.items() if key.endswith(".kind")}
        around = parse(apply_overrides(tree, kinds), where=where)  # raises where a kind itself is wrong
        for key in point:
            section, _, leaf = key.rpartition(".")
            chosen = _at(around, section)
            others = _kinds_with(around, section, leaf)
            if chosen is not None and leaf not in type(chosen).model_fields and others:
                kind = getattr(chosen, "kind", None)
                raise UserError(
                    f"sweep: {key} is not a setting of {section}.kind={kind}: set {section}.kind="
                    f"{' or '.join(others)}"
                ) from None
        raise


def _at(cfg: BaseModel, section: str) -> BaseModel | None:
    """The component of a dotted section, None where there is none."""
    node: Any = cfg
    for name in filter(None, section.split(".")):
        node = getattr(node, name, None)
    return node if isinstance(node, BaseModel) else None


def _kinds_with(cfg: BaseModel, section: str, leaf: str) -> list[str]:
    """The kinds of a section that have a setting of this name."""
    above, _, name = section.rpartition(".")
    owner = _at(cfg, above)
    if owner is None or name not in type(owner).model_fields:
        return []
    members = [
        member
        for member in typing.get_args(type(owner).model_fields[name].annotation)
        if isinstance(member, type) and issubclass(member, BaseModel)
    ]
    return [
        member.model_fields["kind"].default
        for member in members
        if "kind" in member.model_fields and leaf in member.model_fields
    ]


def _assert_comparable(trials: Sequence[Trial]) -> None:
    """Refuse to compare trials where a budget has only one method: its seeds would be stopped against each other.

    Raises:
        UserError: a budget with nothing to choose among.
    """
    methods = Counter(budget for budget, _ in {(trial.budget, trial.method) for trial in trials})
    budget, fewest = min(methods.items(), key=lambda item: (item[1], item[0] or 0.0))
    if fewest < 2:
        alone = "trials without a budget have one" if budget is None else f"budget {budget:g} has one"
        raise UserError(
            f"sweep.scheduler.kind=asha compares the methods of each KL budget, and here {alone}: "
            "sweep another key as well, or set sweep.scheduler.kind=fifo"
        )


def _assert_halves(scheduler: Asha, trials: Sequence[Trial]) -> None:
    """Refuse a scheduler that never sees what it compares while there is something left to stop.

    Raises:
        UserError: a trial whose metric is not measured from the grace time on, before its last step.
    """
    for trial in trials:
        cfg = trial.cfg
        measured = gold_steps(cfg) if scheduler.metric == "gold" else range(cfg.steps)
        if not any(scheduler.grace_steps - 1 <= step < cfg.steps - 1 for step in measured):
            raise UserError(
                f"sweep.scheduler.kind=asha: {trial.name} measures no {scheduler.metric} from step "
                f"{scheduler.grace_steps - 1}, where the grace time ends, to before its last step {cfg.steps - 1}, so "
                "nothing is ever stopped: lower sweep.scheduler.grace_steps, measure gold in between, or set "
                "sweep.scheduler.kind=fifo"
            )


def _varies(key: str, points: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a key makes points differ; one that a point does not set differs from any value."""
    return len({_canonical(point[key]) if key in point else None for point in points}) > 1


def _short_keys(keys: Iterable[str]) -> dict[str, str]:
    """The last part of each key, or the whole of those that share it."""
    last = Counter(key.rpartition(".")[2] for key in keys)
    return {key: leaf if last[leaf := key.rpartition(".")[2]] == 1 else key.replace(".", "-") for key in keys}


def _name(run: str, settings: Mapping[str, Any]) -> str:
    """A folder's name for a run name at a point."""
    name = "-".join([run, *(f"{key}_{_short(value)}" for key, value in settings.items())])
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}-{_hash(name)}"


def _short(value: Any) -> str:
    """A value as part of a folder's name: itself where it is short and plain, else a hash of it."""
    text = _plain(value)
    return text if len(text) <= LONGEST_VALUE and re.fullmatch(r"[\w.+-]+", text, re.ASCII) else _hash(text)


def _plain(value: Any) -> str:
    """A value as a line of text: strings bare, anything else as JSON."""
    return value if isinstance(value, str) else _canonical(value)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _canonical(value: Any) -> str:
    """JSON in which equal settings are equal texts: 8.0 is written as 8."""
    return json.dumps(_whole(value), sort_keys=True, default=str, ensure_ascii=False)


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _whole(inner) for key, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list | tuple) else value
