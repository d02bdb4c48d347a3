"""Where the numbers of a run can be watched while it goes on. Nothing is ever read back from a tracker."""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field

from framework.errors import UserError
from framework.trackers.mlflow import MlFlow
from framework.trackers.tensorboard import TensorBoard
from framework.trackers.tracker import TrackedRun, Tracker, TrackerSettings
from framework.trackers.trackio import Trackio
from framework.trackers.wandb import Wandb

AnyTracker = Annotated[TensorBoard | Wandb | MlFlow | Trackio, Field(discriminator="kind")]


def _each_once(trackers: tuple[AnyTracker, ...]) -> tuple[AnyTracker, ...]:
    if twice := [kind for kind, count in Counter(each.kind for each in trackers).items() if count > 1]:
        raise ValueError(f"{twice[0]} is named twice: it would note every step as often")
    return trackers


Trackers = Annotated[tuple[AnyTracker, ...], AfterValidator(_each_once)]


def assert_ready(trackers: Iterable[TrackerSettings]) -> None:
    """Refuse a tracker that could not be opened here, before anything is spent on a run.

    Raises:
        UserError: the extra to install, or what else to mend.
    """
    for tracker in trackers:
        if problem := tracker.problem():
            raise UserError(f"trackers: {problem}")


__all__ = [
    "AnyTracker", "MlFlow", "TensorBoard", "TrackedRun", "Tracker", "TrackerSettings", "Trackers", "Trackio", "Wandb",
    "assert_ready",
]  # fmt: skip
