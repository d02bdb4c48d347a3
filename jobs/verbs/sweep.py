"""`goldilocks sweep`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.progress import TaskID
from rich.table import Table

from framework.analysis.comparison import Estimate
from framework.analysis.sweep_analysis import SweepAnalysis
from framework.analysis.sweep_table import TrialRecord
from framework.config import Config, load_config
from framework.errors import UserError
from framework.sweep import Trial, num_trials
from jobs.sweep import SWEEP_FILE, SweepResult, SweepView, run_sweep
from jobs.verbs.show import Bars, bars, closing, console
from jobs.verbs.single import INTERRUPTED


def sweep(cfg: Config, out: Path, stop: Callable[[], bool], address: str | None, is_agreed: bool) -> int:
    """Run a sweep, print its table and where the report is; 1 where a trial failed.

    Args:
        is_agreed: whether there may be more trials than `sweep.limit`.

    Raises:
        UserError: there are, and nobody has agreed to it.
    """
    count = num_trials(cfg)
    if count > cfg.sweep.limit and not is_agreed:
        raise UserError(
            f"the sweep has {count} trials and sweep.limit={cfg.sweep.limit}: add --yes, or sweep fewer points"
        )
    with bars() as shown:
        view = TrialBars(shown, count)
        result = run_sweep(cfg, out, stop, view.view(), address)
    if result.interrupted:
        closing(out, f"goldilocks sweep --resume {out}")
        return INTERRUPTED
    print_sweep(result)
    return 1 if result.failed else 0


def resume(out: Path, stop: Callable[[], bool], address: str | None) -> int:
    """`goldilocks sweep --resume DIR`.

    Raises:
        UserError: no sweep there.
    """
    path = out / SWEEP_FILE
    if not path.is_file():
        raise UserError(f"{out} holds no sweep to resume: give the folder that holds its {SWEEP_FILE}")
    return sweep(load_config(path), out, stop, address, is_agreed=True)


def print_sweep(result: SweepResult) -> None:
    """Print what was measured, what failed, and where the report is."""
    if result.analysis is not None:
        console.print(_table(result.analysis))
        for name, method in result.analysis.methods.items():
            if method.advice is not None:
                console.print(f"{name}: {method.advice.sentence}")
    for record in result.failed:
        console.print(f"failed: {record.trial}, seed {record.seed}: {record.error}")
    closing(result.report or result.out, f"open {result.report}" if result.report else None)


def _table(analysis: SweepAnalysis) -> Table:
    """One row per method and budget, by the last fifth of each trial that came to its end, averaged over seeds."""
    table = Table(
        title="KL in nats per sequence, gold in its own unit; both over the last fifth of each trial"
    )
    table.add_column("method")
    for name in ("budget asked", "KL reached", "gold at end", "seeds"):
        table.add_column(name, justify="right")
    for name, method in analysis.methods.items():
        for end in method.budgets:
            budget = "-" if end.budget is None else f"{end.budget:g}"
            table.add_row(name, budget, _figure(end.kl_nats), _figure(end.gold), str(end.num_seeds))
    return table


def _figure(estimate: Estimate) -> str:
    """The mean over seeds, with half the width of its 95% interval where that is known."""
    if estimate.mean is None:
        return "-"
    half = f" ± {(estimate.interval[1] - estimate.interval[0]) / 2:.2f}" if estimate.interval else ""
    return f"{estimate.mean:.2f}{half}"


class TrialBars:
    """One bar for the sweep, and one for each trial while it runs."""

    def __init__(self, shown: Bars, count: int) -> None:
        self.progress, self.stage = shown.progress, shown.stage
        self.whole = self.progress.add_task("trials", total=count, figures="")
        self.running: dict[str, TaskID] = {}

    def view(self) -> SweepView:
        """What a sweep reports to."""
        return SweepView(self.stage, self._began, self._step, self._retried, self._ended)

    def _began(self, trial: Trial) -> None:
        if trial.id not in self.running:
            title = f"seed {trial.seed}: {trial.name}"
            self.running[trial.id] = self.progress.add_task(title, total=trial.cfg.steps, figures="")

    def _step(self, trial: Trial, metrics: dict[str, Any]) -> None:
        known = ((name, metrics[name]) for name in ("proxy", "gold", "kl_nats"))
        figures = "  ".join(f"{name} {value:.2f}" for name, value in known if value is not None)
        self.progress.update(self.running[trial.id], completed=metrics["step"] + 1, figures=figures)

    def _retried(self, trial: Trial, error: str) -> None:
        console.print(f"seed {trial.seed}: {trial.name} is begun again: {error}")

    def _ended(self, record: TrialRecord) -> None:
        bar = self.running.pop(f"{record.trial}-seed_{record.seed}", None)
        if bar is not None:
            self.progress.remove_task(bar)
        if record.status != "unfinished":
            self.progress.advance(self.whole)
        if record.error:
            console.print(f"seed {record.seed}: {record.trial} failed: {record.error}")
