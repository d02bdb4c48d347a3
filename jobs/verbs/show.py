"""Progress and closing lines, the same for every verb: bars on a terminal, lines in a file or the log of a job."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from framework.analysis.alarms import BASELINE, SIGNALS
from framework.training import Progress as Report
from jobs.stop import StopSignal

# Without a terminal nothing wraps at 80 columns: logs are read elsewhere.
console = Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)

INTERRUPTED = 130
"""Exit code after an interrupt that lost nothing."""
SHOWN = ("proxy", "gold", "kl_nats")
"""Figures beside the bar of a run."""
LINE_SECONDS = 5.0
"""Between two lines of progress where there is no terminal, whatever goes on side by side."""
WORDS = ("aggregation", "method", "run", "subset")
"""Columns of tables that hold words; the others hold figures."""


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
                bar.append(self.progress.add_task(title, total=total, completed=done, figures=_in_words(figures)))
            self.progress.update(bar[0], completed=done, figures=_in_words(figures))
            self.in_stage()

        return move

    def run(self, title: str, length: int) -> Callable[[int, dict[str, Any]], None]:
        """A callback for a run of so many rows."""
        return self.bar(title, length)[1]

    def bar(self, title: str, length: int) -> tuple[TaskID, Callable[[int, dict[str, Any]], None]]:
        """The bar of a run, and what each row's number and metrics are told to."""
        task = self.progress.add_task(title, total=length, figures="")
        seen: dict[str, tuple[int, float]] = {}

        def show(row: int, metrics: dict[str, Any]) -> None:
            figures = {name: metrics[name] for name in SHOWN if metrics.get(name) is not None}
            seen.update({name: (row, value) for name, value in figures.items()})
            latest = [f"{name} {value:z.2f}" + f" (step {at})" * (at != row) for name, (at, value) in seen.items()]
            self.progress.update(task, completed=row + 1, figures=_in_words(figures), latest="  ".join(latest))
            for signal in SIGNALS:
                if metrics.get("warnings", {}).get(signal.name) == row:
                    self.progress.console.print(
                        f"{title}: warning at step {row}: {signal.meaning} than in the first {BASELINE} steps "
                        f"({signal.name} {metrics[signal.name]:.3g})"
                    )

        return task, show


def _in_words(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:z.2f}" for name, value in figures.items())


class _Lines(Progress):
    """In place of bars that nobody would see before the end: a line every few seconds, written at once."""

    def __init__(self) -> None:
        super().__init__(console=console, disable=True, speed_estimate_period=600)
        self._due: dict[TaskID, float] = {}

    def add_task(self, *args: Any, **fields: Any) -> TaskID:
        task_id = super().add_task(*args, **fields)
        self.update(task_id)
        return task_id

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        task, now = self._tasks[task_id], self.get_time()
        due = self._due.get(task_id, now)
        if now < due and (not task.finished or due == float("inf")):
            return  # its last line is due when it is finished, and only once
        side_by_side = sum(not other.finished for other in self.tasks)
        self._due[task_id] = float("inf") if task.finished else now + LINE_SECONDS * side_by_side
        figures = task.fields.get("latest") or task.fields["figures"]
        words = [f"{task.description}: {task.completed:.0f}/{task.total:.0f}", figures]
        words.append(f"{timedelta(seconds=round(task.elapsed or 0))} gone")
        words.append(f"{timedelta(seconds=task.time_remaining)} left" if task.time_remaining else "")
        self.console.print("  ".join(filter(None, words)))


@contextmanager
def bars(stop: StopSignal | None) -> Iterator[Bars]:
    """Bars on the terminal for the length of a block; lines where there is none."""
    title, figures = TextColumn("{task.description}"), TextColumn("{task.fields[figures]}")
    columns = title, BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(), figures
    with Progress(*columns, console=console) if console.is_terminal else nullcontext(_Lines()) as progress:
        yield Bars(progress, stop.in_stage) if stop else Bars(progress)


def table_of(title: str, names: Iterable[str]) -> Table:
    """A table without rows yet, figures to the right."""
    table = Table(title=title)
    for name in names:
        table.add_column(name, justify="left" if name in WORDS else "right")
    return table


def closing(results: object, then: str | None = None) -> None:
    """The last lines of every verb: where its results are, and what to run next."""
    console.print(f"results: {results}")
    if then:
        console.print(f"next: {then}")
