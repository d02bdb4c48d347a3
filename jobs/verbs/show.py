"""Progress bars and closing lines, the same for every verb."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from framework.analysis.alarms import BASELINE, SIGNALS
from framework.training.policy_fit import Progress as Report

# Without a terminal nothing wraps at 80 columns: logs are read elsewhere.
console = Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)


class Bars:
    """One bar per stage or run, made when it begins to move."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def stage(self, title: str) -> Report:
        """A callback for a fit."""
        return self._callback(title)

    def run(self, title: str, steps: int) -> Callable[[int, dict[str, Any]], None]:
        """A callback for an online run."""
        move = self._callback(title)

        def show(step: int, metrics: dict[str, Any]) -> None:
            figures = {
                name: metrics[name] for name in ("proxy", "gold", "kl_nats") if metrics[name] is not None
            }
            move(step + 1, steps, figures)
            for signal in SIGNALS:
                if metrics["warnings"][signal.name] == step:
                    self.progress.console.print(
                        f"{title}: warning at step {step}: {signal.meaning} than in the first {BASELINE} steps "
                        f"({signal.name} {metrics[signal.name]:.3g})"
                    )

        return show

    def _callback(self, title: str) -> Report:
        made: list[Any] = []

        def move(done: int, total: int, figures: dict[str, float]) -> None:
            if not made:
                made.append(self.progress.add_task(title, total=total, figures=""))
            text = "  ".join(f"{name} {value:.2f}" for name, value in figures.items())
            self.progress.update(made[0], completed=done, figures=text)

        return move


@contextmanager
def bars() -> Iterator[Bars]:
    """Bars on the terminal for the length of a block."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)


def closing(results: object, then: str | None = None) -> None:
    """The last lines of every verb: where its results are, and what to run next."""
    console.print(f"results: {results}")
    if then:
        console.print(f"next: {then}")
