"""Progress bars and closing lines, the same for every verb."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from framework.analysis.alarms import BASELINE, SIGNALS
from framework.training import Progress as Report
from jobs.stop import StopSignal

# Without a terminal nothing wraps at 80 columns: logs are read elsewhere.
console = Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)

INTERRUPTED = 130
"""Exit code after an interrupt that lost nothing."""
SHOWN = ("proxy", "gold", "kl_nats")
"""Figures beside the bar of a run."""


class Bars:
    """One bar per stage or run."""

    def __init__(self, progress: Progress, in_stage: Callable[[], None] = lambda: None) -> None:
        """`in_stage` is called whenever the bar of a stage moves, and may end it."""
        self.progress, self.in_stage = progress, in_stage

    def stage(self, title: str) -> Report:
        """A callback for a fit: its bar comes when it begins to move."""
        bar: list[TaskID] = []

        def move(done: int, total: int, figures: dict[str, float]) -> None:
            if not bar:
                bar.append(self.progress.add_task(title, total=total, figures=""))
            self.progress.update(bar[0], completed=done, figures=_in_words(figures))
            self.in_stage()

        return move

    def run(self, title: str, length: int) -> Callable[[int, dict[str, Any]], None]:
        """A callback for a run of so many rows."""
        return self.bar(title, length)[1]

    def bar(self, title: str, length: int) -> tuple[TaskID, Callable[[int, dict[str, Any]], None]]:
        """The bar of a run, and what each row's number and metrics are told to."""
        task = self.progress.add_task(title, total=length, figures="")

        def show(row: int, metrics: dict[str, Any]) -> None:
            figures = {name: metrics[name] for name in SHOWN if metrics.get(name) is not None}
            self.progress.update(task, completed=row + 1, figures=_in_words(figures))
            for signal in SIGNALS:
                if metrics.get("warnings", {}).get(signal.name) == row:
                    self.progress.console.print(
                        f"{title}: warning at step {row}: {signal.meaning} than in the first {BASELINE} steps "
                        f"({signal.name} {metrics[signal.name]:.3g})"
                    )

        return task, show


def _in_words(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.2f}" for name, value in figures.items())


@contextmanager
def bars(stop: StopSignal | None) -> Iterator[Bars]:
    """Bars on the terminal for the length of a block."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress, stop.in_stage) if stop else Bars(progress)


def closing(results: object, then: str | None = None) -> None:
    """The last lines of every verb: where its results are, and what to run next."""
    console.print(f"results: {results}")
    if then:
        console.print(f"next: {then}")
