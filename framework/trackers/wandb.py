"""Weights & Biases, with or without a network."""

import shutil
from typing import Any, ClassVar, Literal

from framework.trackers.tracker import Calls, TrackedRun, Tracker, TrackerSettings


class Wandb(TrackerSettings):
    """Weights & Biases. Offline, the folder `wandb/` of the run is for `wandb sync` once the run has ended."""

    kind: Literal["wandb"] = "wandb"
    project: str = "goldilocks"
    """That the runs are shown in."""
    entity: str | None = None
    """The user or team that the project is of. None: your own."""
    mode: Literal["online", "offline"] | None = None
    """None: what WANDB_MODE says, else online."""

    package: ClassVar[str | None] = "wandb"

    @property
    def _mode(self) -> Any:
        import wandb

        return self.mode or wandb.setup().settings.mode

    def problem(self) -> str | None:
        if found := super().problem():
            return found
        import wandb

        known = self._mode != "online" or wandb.login(prompt=False)
        return None if known else "wandb knows no API key: `wandb login`, or set mode: offline"

    def start(self, run: TrackedRun) -> tuple[Tracker, int]:
        """The W&B run of this run's id, which goes on where there is one. Offline it is written anew: a kill loses most."""
        import wandb

        if self._mode == "offline":
            shutil.rmtree(run.folder / "wandb", ignore_errors=True)
        opened = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self._mode,
            id=run.id,
            name=run.title,
            resume="allow",
            dir=str(run.folder),
            config=run.settings,
            settings=wandb.Settings(silent=True, console="off"),
        )
        tracker = Calls(lambda step, numbers: opened.log(dict(numbers), step=step), opened.finish)
        return tracker, opened.step if opened.resumed else 0
