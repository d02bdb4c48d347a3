"""A run's trackers: each number under its group, each step once, and no run that ends because a tracker fails."""

import importlib.util
import secrets
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from framework.artifacts import write_text
from framework.component import Component
from framework.errors import RunError, UserError, one_line

GROUPS = {
    "reward": ("proxy", "gold", "reward"),
    "heads": ("disagreement", "head_", "length_correlation", "feature_distance"),
    "kl": ("kl_",),
}
"""Of a number, by how its name begins; all others are the policy's."""


@dataclass(frozen=True)
class TrackedRun:
    """A run, as a tracker is told of it."""

    folder: Path
    title: str
    settings: dict[str, Any]
    start_step: int = 0

    @property
    def id(self) -> str:
        """By which a tracker finds the run again; it is drawn once, and stays in the run's folder."""
        path = self.folder / "tracker_id.txt"
        if not path.is_file():
            write_text(path, secrets.token_hex(4) + "\n")
        return path.read_text(encoding="utf-8").strip()


@dataclass(frozen=True)
class Tracker:
    """One that is told the numbers of a run."""

    log: Callable[[int, Mapping[str, float]], None]
    """Takes a step and its numbers by `group/name`."""
    close: Callable[[], object]
    first: int
    """The first step that it lacks."""


class TrackerSettings(Component):
    """Base of the trackers' settings."""

    package: ClassVar[str | None] = None
    """That has to be installed; the extra of that name brings it."""

    def assert_ready(self) -> None:
        """Refuse, before anything is spent on a run, one that could not be started here.

        Raises:
            UserError: the extra to install, or what else to mend.
        """
        if (name := self.package) and importlib.util.find_spec(name) is None:
            raise UserError(
                f"trackers: {name} is not installed: pip install 'goldilocks[{name}]', or leave it out of trackers"
            )

    def start(self, run: TrackedRun) -> Tracker:
        """A tracker that goes on with what it has of this run."""
        raise NotImplementedError


class Tracking:
    """The trackers of a run, started."""

    def __init__(self, settings: Sequence[Any], run: TrackedRun) -> None:
        """Start them.

        Raises:
            RunError: one of them does not start.
        """
        self._started: dict[str, Tracker] = {}
        for one in settings:
            try:
                self._started[one.kind] = one.start(run)
            except Exception as error:
                self.close()
                raise RunError(f"trackers: cannot open {one.kind}: {one_line(error)[:300]}") from error

    def catch_up(self, metrics: Iterable[Mapping[str, Any]], timings: Iterable[Mapping[str, Any]]) -> None:
        """Tell each tracker what it lacks of the steps that a run goes on from."""
        times = {record["step"]: record for record in timings}
        for record in metrics:
            self.step(record["step"], record, times.get(record["step"], {}))

    def step(self, step: int, metrics: Mapping[str, Any], timings: Mapping[str, Any]) -> None:
        """Hand a step's numbers on. A tracker that fails is warned of and left out from then on."""
        numbers = {f"{group_of(name)}/{name}": value for name, value in metrics.items() if isinstance(value, float)}
        times = {"seconds": timings.get("seconds")} | timings.get("stage_seconds", {})
        numbers |= {f"time/{name}": seconds for name, seconds in times.items() if seconds is not None}
        for kind, tracker in list(self._started.items()):
            try:
                if step >= tracker.first:
                    tracker.log(step, numbers)
            except Exception as error:  # noqa: BLE001 - of any library; the run's own files have every number
                del self._started[kind]
                what = f"{kind} failed at step {step} and is left out from here on: {one_line(error)[:300]}"
                warnings.warn(what, stacklevel=2)

    def close(self) -> None:
        """Close all of them; one that fails at it is warned of."""
        while self._started:
            kind, tracker = self._started.popitem()
            try:
                tracker.close()
            except Exception as error:  # noqa: BLE001 - as above
                warnings.warn(f"{kind} could not be closed: {one_line(error)[:300]}", stacklevel=2)


def group_of(name: str) -> str:
    """The group that a metric is shown in: proxy and gold stand in one."""
    return next((group for group, beginnings in GROUPS.items() if name.startswith(beginnings)), "policy")
