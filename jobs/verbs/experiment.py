"""`goldilocks study`, `goldilocks sweep` and `goldilocks demo`: one experiment, with or without a grid."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import TaskID

from framework.analysis.over_seeds import Estimate
from framework.analysis.records import RunRecord
from framework.config import Config
from framework.errors import UserError
from jobs.experiment.plan import PlannedRun, num_runs
from jobs.experiment.run import EXPERIMENT_FILE, ExperimentResult, ExperimentView, run_experiment
from jobs.run_folder import written_config
from jobs.stop import StopSignal
from jobs.verbs.show import INTERRUPTED, Bars, bars, closing, console, table_of

if TYPE_CHECKING:  # an experiment begins seconds sooner without statistics
    from framework.analysis.comparison import Comparison
    from framework.analysis.experiment import Experiment


OUTCOMES = {
    "proxy start": "proxy_start", "proxy end": "proxy_end", "gold start": "gold_start", "gold peak": "gold_peak",
    "at nats": "kl_nats_at_gold_peak", "gold end": "gold_end", "nats end": "kl_nats_end",
}  # fmt: skip
"""Columns that are printed, and the figures of an `Outcome` in them."""
DIFFERENCES = {
    "gold end less": "gold_end_difference", "gold peak less": "gold_peak_difference", "win rate": "win_rate",
}  # fmt: skip
"""Columns that are printed, and the figures of a `Comparison` in them."""


def experiment(cfg: Config, out: Path, stop: StopSignal, address: str | None, is_agreed: bool) -> int:
    """Run an experiment, print what came out; 1 where a run failed, a UserError for too many not agreed to."""
    count = num_runs(cfg)
    if count > cfg.sweep.limit and not is_agreed:
        limit = f"the experiment has {count} runs and sweep.limit={cfg.sweep.limit}"
        raise UserError(f"{limit}: add --yes, or ask for fewer")
    with bars(stop) as shown:
        result = run_experiment(cfg, out, lambda: stop.asked, _bars_of_runs(shown, count, stop), address)
    if result.interrupted:
        closing(out, f"the same command again, or --resume {out}: what is finished is kept")
        return INTERRUPTED
    print_experiment(result)
    return 1 if result.failed else 0


def resume(out: Path, stop: StopSignal, address: str | None) -> int:
    """`--resume DIR` of both verbs; a UserError where there is no experiment."""
    path = out / EXPERIMENT_FILE
    if not path.is_file():
        raise UserError(f"{out} holds no experiment to resume: give the folder that holds its {EXPERIMENT_FILE}")
    return experiment(written_config(path), out, stop, address, is_agreed=True)


def _bars_of_runs(shown: Bars, count: int, stop: StopSignal) -> ExperimentView:
    """One bar for the experiment, and one for each run while it goes on."""
    whole = shown.progress.add_task("runs", total=count, figures="")
    running: dict[str, tuple[TaskID, Callable[[int, dict[str, Any]], None]]] = {}

    def began(run: PlannedRun) -> None:
        stop.between_steps()  # its run saves when it stops
        if run.id not in running:
            running[run.id] = shown.bar(f"seed {run.record.seed}: {run.record.run}", run.cfg.train.length)

    def step(run: PlannedRun, metrics: dict[str, Any]) -> None:
        running[run.id][1](int(metrics["step"]), metrics)

    def retried(run: PlannedRun, error: str) -> None:
        console.print(f"seed {run.record.seed}: {run.record.run} is begun again: {error}")

    def ended(record: RunRecord) -> None:
        bar = running.pop(f"{record.run}-seed_{record.seed}", None)
        if bar is not None:
            shown.progress.remove_task(bar[0])
        if record.status != "unfinished":
            shown.progress.update(whole, advance=1)
        if record.error:
            console.print(f"seed {record.seed}: {record.run} failed: {record.error}")

    return ExperimentView(shown.stage, began, step, retried, ended)


def print_experiment(result: ExperimentResult) -> None:
    """Print what was measured, what failed, and where the report is."""
    if result.experiment is not None:
        from framework.report.findings import headline  # slow to import, and not needed while runs go on

        console.print(headline(result.experiment))
        _print_outcomes(result.experiment)
        if result.experiment.comparison is not None:
            _print_comparison(result.experiment.comparison)
        for name, curve in result.experiment.curves.items():
            if curve.advice is not None:
                console.print(f"{name}: {curve.advice.sentence}")
    for record in result.failed:
        console.print(f"failed: {record.run}, seed {record.seed}: {record.error}")
    closing(result.report or result.out, f"open {result.report}" if result.report else None)


def _print_outcomes(experiment: "Experiment") -> None:
    """One row a curve and point: means over its complete runs, with half the width of the 95% interval."""
    rows = []
    for curve in experiment.curves.values():
        for point in dict.fromkeys(run.run for run in curve.outcomes):
            own = [run.outcome for run in curve.outcomes if run.run == point]
            figures = (Estimate.of([getattr(outcome, key) for outcome in own]) for key in OUTCOMES.values())
            budget = "-" if own[0].budget is None else f"{own[0].budget:g}"
            rows.append((point, budget, *map(_figure, figures), str(len(own))))
    title = "proxy in reference standard deviations, gold in its own unit, KL in nats per sequence"
    _print_table(title, ("run", "budget", *OUTCOMES, "seeds"), rows)


def _print_comparison(comparison: "Comparison") -> None:
    """One row a run name: gold at the end and at the peak less the baseline's, and wins; `*` marks what Holm leaves."""
    rows = []
    for method, cells in comparison.figures.items():
        for cell, figures in cells.items():
            marks = comparison.marks[method][cell]
            known = {key: _figure(own) + ("*" if marks.get(key) else "") for key, own in figures.items()}
            shown = [known.get(key, "-") for key in DIFFERENCES.values()]
            rows.append((method.replace("_", "-"), ", ".join(filter(None, cell)), *shown))
    title = f"against {comparison.baseline}, seed by seed; * clear after Holm's correction"
    _print_table(title, ("method", "run", *DIFFERENCES), rows)


def _print_table(title: str, names: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    table = table_of(title, names)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _figure(estimate: Estimate) -> str:
    """The mean over seeds, with half the width of its 95% interval where that is known."""
    if estimate.mean is None:
        return "-"
    half = f" ± {(estimate.interval[1] - estimate.interval[0]) / 2:.2f}" if estimate.interval else ""
    return f"{estimate.mean:z.2f}{half}"
