"""Where the numbers of a run can be watched while it goes on. Nothing is ever read back from a tracker."""

from typing import Annotated

from pydantic import AfterValidator, Field

from framework.trackers.kinds import MlFlow, TensorBoard, Trackio, Wandb
from framework.trackers.tracker import TrackedRun, Tracker, TrackerSettings, Tracking

AnyTracker = Annotated[TensorBoard | Wandb | MlFlow | Trackio, Field(discriminator="kind")]


def _each_once(trackers: tuple[AnyTracker, ...]) -> tuple[AnyTracker, ...]:
    kinds = [each.kind for each in trackers]
    if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
        raise ValueError(f"{twice[0]} is named twice: it would note every step as often")
    return trackers


Trackers = Annotated[tuple[AnyTracker, ...], AfterValidator(_each_once)]

__all__ = [
    "MlFlow", "TensorBoard", "TrackedRun", "Tracker", "TrackerSettings", "Trackers", "Tracking", "Trackio", "Wandb",
]  # fmt: skip
