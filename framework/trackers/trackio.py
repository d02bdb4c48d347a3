"""trackio: a database file on this machine, or a Space on the hub."""

import contextlib
import io
from typing import ClassVar, Literal

from framework.trackers.tracker import Calls, TrackedRun, Tracker, TrackerSettings


class Trackio(TrackerSettings):
    """trackio. `trackio show --project PROJECT` shows it."""

    kind: Literal["trackio"] = "trackio"
    project: str = "goldilocks"
    """That the runs are shown in."""
    space_id: str | None = None
    """A Space on the hub. None: what TRACKIO_SPACE_ID says, else a file on this machine, in the folder TRACKIO_DIR."""

    package: ClassVar[str | None] = "trackio"

    def start(self, run: TrackedRun) -> tuple[Tracker, int]:
        """The trackio run of this run's title and id, which goes on where there is one."""
        import trackio

        def close() -> None:
            with contextlib.redirect_stdout(io.StringIO()):  # which holds the lines of the verb
                trackio.finish()

        with contextlib.redirect_stdout(io.StringIO()):
            opened = trackio.init(
                project=self.project,
                space_id=self.space_id,
                name=f"{run.title}-{run.id}",
                resume="allow",
                config=run.settings,
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
        tracker = Calls(lambda step, numbers: opened.log(dict(numbers), step=step), close)
        # A name that is not public: without it a run that goes on may have steps twice.
        return tracker, getattr(opened, "_next_step", run.start_step)
