"""What an experiment varies beside its variants, conditions and seeds, and how its runs are scheduled."""

import itertools
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from framework.component import Component

AROUND_RUNS = ("seed", "seeds", "variants", "conditions", "baseline", "sweep")
"""What makes runs of an experiment; in one of them it has no effect."""
NOT_SWEPT = (*AROUND_RUNS, "backend", "cluster", "best_of_n", "score_pairs")
"""What is the same in all runs, or is crossed with the points anyway."""


class Fifo(Component):
    """Takes every run to its end, in order."""

    kind: Literal["fifo"] = "fifo"


class Asha(Component):
    """Stops the runs that do worst among those of one KL budget, by successive halving (arXiv 1810.05934).

    Which runs stop depends on which are ahead, so two such sweeps need not agree.
    """

    kind: Literal["asha"] = "asha"
    metric: Literal["gold", "proxy"] = "gold"
    """What is compared; the larger is the better."""
    grace_steps: int = Field(default=20, ge=1)
    """Steps that every run is given."""
    reduction_factor: float = Field(default=4.0, gt=1)
    """Ratio: of so many runs that come to a rung one goes on, and the next rung is so many times as far."""


Scheduler = Annotated[Fifo | Asha, Field(discriminator="kind")]


class Sweep(Component):
    """What an experiment varies, and how it runs what comes of that."""

    grid: dict[str, tuple[Any, ...]] = Field(default={})
    """Dotted keys and the values of each, all crossed; for example `train.kl.budget: [2, 4, 8]`."""
    points: tuple[dict[str, Any], ...] = ()
    """Instead of a grid: a list of points, each with the dotted keys that it sets."""
    limit: int = Field(default=100, ge=1)
    """Runs that are begun without --yes."""
    retries: int = Field(default=1, ge=0)
    """Times that a failed run is begun again; it goes on from its last checkpoint."""
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
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


def _refuse_repeated(name: str, values: Sequence[Any]) -> None:
    """Refuse a list with two equal values: their runs would be the same."""
    counts = Counter(canonical(value) for value in values)
    repeated = next((text for text, count in counts.items() if count > 1), None)
    if repeated is not None:
        raise ValueError(f"{name} holds {repeated} twice")


def canonical(value: Any) -> str:
    """JSON in which equal settings are equal texts: 8.0 is written as 8."""
    return json.dumps(_whole(value), sort_keys=True, default=str, ensure_ascii=False)


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _whole(inner) for key, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list | tuple) else value
