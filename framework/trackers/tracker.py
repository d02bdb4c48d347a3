"""What all trackers share: the run that one is opened for, and the two calls of an open one."""

import importlib.util
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from framework.artifacts import write_text
from framework.component import Component

ID_FILE = "tracker_id.txt"
Log = Callable[[int, Mapping[str, float]], None]


class Tracker(Protocol):
    """Takes the numbers of a run, by `group/name`, step by step; `close` writes down what is still to be written."""

    @property
    def log(self) -> Log: ...
    @property
    def close(self) -> Callable[[], None]: ...


@dataclass(frozen=True)
class Calls:
    """A tracker of two functions."""

    log: Log
    close: Callable[[], None]


@dataclass(frozen=True)
class TrackedRun:
    """A run, as a tracker is told of it."""

    folder: Path
    title: str
    """Tells it from other runs, to a reader."""
    settings: dict[str, Any]
    """Its resolved configuration."""
    start_step: int = 0
    """The step that it begins or goes on at."""

    @property
    def id(self) -> str:
        """By which a tracker finds the run again; it is drawn once, and stays in the run's folder."""
        path = self.folder / ID_FILE
        if not path.is_file():
            write_text(path, secrets.token_hex(4) + "\n")
        return path.read_text(encoding="utf-8").strip()


class TrackerSettings(Component):
    """Base of the trackers' settings."""

    package: ClassVar[str | None] = None
    """That has to be installed; the extra of that name brings it."""

    def problem(self) -> str | None:
        """Why it cannot be opened here, and how to mend that, in one line; None where it can."""
        if self.package is None or importlib.util.find_spec(self.package) is not None:
            return None
        return f"{self.package} is not installed: pip install 'goldilocks[{self.package}]', or leave it out of trackers"

    def start(self, run: TrackedRun) -> tuple[Tracker, int]:
        """An open tracker, and the first step that it lacks. What it lacks of the past is told it from the run's log."""
        raise NotImplementedError
