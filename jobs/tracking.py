"""A run's trackers as one: each number under its group, each step once, and no run that ends because a tracker fails."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from framework.errors import RunError, one_line
from framework.trackers import AnyTracker, TrackedRun, Tracker

GROUPS = {
    "reward": ("proxy", "gold", "reward"),
    "heads": ("disagreement", "head_", "length_correlation", "feature_distance"),
    "kl": ("kl_",),
}
"""Of a number, by how its name begins; all others are the policy's."""


class Tracking:
    """The open trackers of a run."""

    def __init__(self, settings: Sequence[AnyTracker], run: TrackedRun) -> None:
        """Open them.

        Raises:
            RunError: one of them cannot be opened.
        """
        self._open: list[tuple[str, int, Tracker]] = []
        for one in settings:
            try:
                tracker, first = one.start(run)
            except Exception as error:
                self.close()
                raise RunError(f"trackers: cannot open {one.kind}: {one_line(error)[:300]}") from error
            self._open.append((one.kind, first, tracker))

    def catch_up(self, metrics: Sequence[Mapping[str, Any]], timings: Sequence[Mapping[str, Any]]) -> None:
        """Tell each tracker what it lacks of the steps that a run goes on from."""
        times = {record["step"]: record for record in timings}
        for record in metrics:
            self.step(record["step"], record, times.get(record["step"], {}))

    def step(self, step: int, metrics: Mapping[str, Any], timings: Mapping[str, Any]) -> None:
        """Hand a step's numbers on. A tracker that fails is warned of and left out from then on."""
        numbers = {f"{group_of(name)}/{name}": value for name, value in metrics.items() if isinstance(value, float)}
        times = {"seconds": timings.get("seconds")} | timings.get("stage_seconds", {})
        numbers |= {f"time/{name}": seconds for name, seconds in times.items() if seconds is not None}
        for one in list(self._open):
            kind, first, tracker = one
            if step < first:
                continue
            try:
                tracker.log(step, numbers)
            except Exception as error:  # noqa: BLE001 - of any library; the run's own files have every number
                self._open.remove(one)
                what = f"{kind} failed at step {step} and is left out from here on: {one_line(error)[:300]}"
                warnings.warn(what, stacklevel=2)

    def close(self) -> None:
        """Close all of them; one that fails at it is warned of."""
        while self._open:
            kind, _, tracker = self._open.pop()
            try:
                tracker.close()
            except Exception as error:  # noqa: BLE001 - as above
                warnings.warn(f"{kind} could not be closed: {one_line(error)[:300]}", stacklevel=2)


def group_of(name: str) -> str:
    """The group that a metric is shown in: proxy and gold stand in one."""
    return next((group for group, beginnings in GROUPS.items() if name.startswith(beginnings)), "policy")
