"""TensorBoard event files in the run's folder."""

import shutil
from collections.abc import Mapping
from typing import Literal

from framework.trackers.tracker import Calls, TrackedRun, Tracker, TrackerSettings

# One chart with both curves, under TensorBoard's custom scalars.
_TOGETHER = {"reward": {"proxy and gold": ["Multiline", ["reward/proxy$", "reward/gold$"]]}}


class TensorBoard(TrackerSettings):
    """Event files in `tensorboard/` of the run's folder."""

    kind: Literal["tensorboard"] = "tensorboard"

    def start(self, run: TrackedRun) -> tuple[Tracker, int]:
        """A writer of all steps. TensorBoard drops what an earlier one wrote of the steps that come again."""
        from tensorboardX import SummaryWriter

        folder = run.folder / "tensorboard"
        if run.start_step == 0:
            shutil.rmtree(folder, ignore_errors=True)
        writer = SummaryWriter(logdir=str(folder), purge_step=run.start_step)
        writer.add_custom_scalars(_TOGETHER)

        def log(step: int, numbers: Mapping[str, float]) -> None:
            for name, value in numbers.items():
                writer.add_scalar(name, value, step)

        return Calls(log, writer.close), run.start_step
