"""`goldilocks sweep`: what trials start from, the trials on Ray Tune, then one table, its analysis and a report.

A killed sweep goes on by its run folders: a trial with a summary is finished and is left alone, any other goes on
from its own checkpoint.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.plan import Node, explain, run_bundles
from cluster.session import connect
from cluster.spec import load_spec
from framework.analysis.sweep_table import SweepTable, TrialRecord, build_table, read_table
from framework.artifacts import write_text
from framework.config import Config, load_config
from framework.errors import PlacementError, UserError
from framework.sweep import Trial, trials_of
from jobs.run_inputs import ShowStage, make_inputs, score_pool
from jobs.stages import check_prompts
from jobs.workspace import claim

if TYPE_CHECKING:  # the latter imports Ray, which reads its environment when it is first imported
    from framework.analysis.sweep_analysis import SweepAnalysis
    from jobs.tune_trials import ReadyTrial

SWEEP_FILE = "sweep.yaml"
TRIALS_FILE = "trials.json"
TABLE_FILE = "results.parquet"
ANALYSIS_FILE = "analysis.json"
TUNE_FOLDER = "tune"
DONE = ("finished", "stopped")
"""Statuses of trials that are not run again."""


@dataclass(frozen=True)
class SweepView:
    """Where a sweep shows its progress; the default shows nothing."""

    stage: ShowStage = lambda name: None
    began: Callable[[Trial], None] = lambda trial: None
    step: Callable[[Trial, dict[str, Any]], None] = lambda trial, metrics: None
    """Told each step's number and metrics."""
    retried: Callable[[Trial, str], None] = lambda trial, error: None
    """Told what stopped a trial that is begun again."""
    ended: Callable[[TrialRecord], None] = lambda record: None


@dataclass
class SweepResult:
    """How a sweep ended."""

    out: Path
    records: list[TrialRecord] = field(default_factory=list)
    analysis: "SweepAnalysis | None" = None
    """None where no trial has data, or the sweep was interrupted."""
    report: Path | None = None

    @property
    def interrupted(self) -> bool:
        """Whether some trial has yet to be run to its end."""
        return any(record.status == "unfinished" for record in self.records)

    @property
    def failed(self) -> list[TrialRecord]:
        """The trials that could not be run."""
        return [record for record in self.records if record.status == "failed"]


def run_sweep(
    cfg: Config, out: Path, stop_asked: Callable[[], bool], view: SweepView, address: str | None = None
) -> SweepResult:
    """Run every trial that is not finished yet, then write the table, the analysis and the report.

    Raises:
        UserError: a trial's configuration is not valid, or the folder holds something else.
        PlacementError: a trial asks for more than the cluster has.
    """
    trials = trials_of(cfg)
    for tree in {trial.cfg.world.model_dump_json(): trial.cfg for trial in trials}.values():
        check_prompts(tree)
    claim(out / SWEEP_FILE, cfg.to_yaml(), "sweep", lambda file: _same(load_config(file), cfg))
    ledger = Ledger(out, trials)
    ledger.write()
    for record in ledger.records():
        if record.status in DONE:
            view.ended(record)
    if ledger.waiting:
        with connect(address, load_spec(cfg.cluster), namespace="sweep") as session:
            _assert_fits(ledger.waiting, session.nodes())
            _run(cfg, ledger, stop_asked, view, address)
    result = SweepResult(out, ledger.records())
    return result if result.interrupted else finish_sweep(result)


def finish_sweep(result: SweepResult, table: SweepTable | None = None) -> SweepResult:
    """Write the table, unless one is given, its analysis and the report, without running anything."""
    # Imported here: a sweep begins seconds sooner without statistics and drawing.
    from framework.analysis.sweep_analysis import analyse_sweep
    from framework.report.sweep import write_sweep_report

    if table is None:
        if not any(record.run for record in result.records):
            return result  # every trial failed before its first step: trials.json says why
        build_table(result.records).write(result.out / TABLE_FILE)
        table = read_table(result.out / TABLE_FILE)
    result.analysis = analyse_sweep(table)
    text = json.dumps(result.analysis.to_json(), indent=2, allow_nan=False) + "\n"
    write_text(result.out / ANALYSIS_FILE, text)
    result.report = write_sweep_report(result.out, table, result.analysis, result.records)
    return result


def report_sweep(out: Path) -> SweepResult:
    """Analyse and report a sweep again: from its table, or from the runs of one that was interrupted.

    Raises:
        UserError: no trial has logged a step.
    """
    records = Ledger(out, trials_of(load_config(out / SWEEP_FILE))).records()
    path = out / TABLE_FILE
    if not path.is_file() and not any(record.run for record in records):
        raise UserError(f"{out} holds a sweep without a step: go on with `goldilocks sweep --resume {out}`")
    return finish_sweep(SweepResult(out, records), read_table(path) if path.is_file() else None)


class Ledger:
    """What became of each trial: `trials.json`, and before it the run folders themselves."""

    def __init__(self, out: Path, trials: Iterable[Trial]) -> None:
        self.out, self.path = out, out / TRIALS_FILE
        before = self._read()
        self.states = {trial.id: (trial, *self._state(trial, before)) for trial in trials}

    @property
    def waiting(self) -> list[Trial]:
        """The trials that are to be run."""
        return [trial for trial, status, _ in self.states.values() if status not in DONE]

    def run(self, trial: Trial) -> Path:
        """The run folder of a trial."""
        return self.out / f"seed_{trial.seed}" / trial.name / "train"

    def note(self, trial: Trial, status: str, error: str | None) -> TrialRecord:
        """Write down what became of a trial, as far as its run folder does not tell."""
        state = self._ended(trial) or status, error
        self.states[trial.id] = (trial, *state)
        self.write()
        return self._record(trial, *state)

    def records(self) -> list[TrialRecord]:
        """All trials, in their order."""
        return [self._record(*state) for state in self.states.values()]

    def write(self) -> None:
        """Write `trials.json`, where it has changed."""
        rows = [
            {
                "trial": record.trial,
                "method": record.method,
                "budget": record.budget,
                "seed": record.seed,
                "settings": record.settings,
                "status": record.status,
                "run": record.run and str(record.run.relative_to(self.out)),
                "error": record.error,
            }
            for record in self.records()
        ]
        text = json.dumps({"trials": rows}, indent=2) + "\n"
        if not self.path.is_file() or self.path.read_text() != text:
            write_text(self.path, text)

    def _record(self, trial: Trial, status: str, error: str | None) -> TrialRecord:
        run = self.run(trial)
        metrics = run / "metrics.jsonl"
        began = metrics.is_file() and metrics.stat().st_size > 0
        return TrialRecord(
            trial=trial.name,
            method=trial.method,
            budget=trial.budget,
            seed=trial.seed,
            settings=trial.settings,
            status=status,  # type: ignore[arg-type] # one of the four words
            run=run if began else None,
            error=error,
        )

    def _state(
        self, trial: Trial, before: dict[tuple[str, int], tuple[str, str | None]]
    ) -> tuple[str, str | None]:
        ended = self._ended(trial)
        if ended:
            return ended, None
        status, error = before.get((trial.name, trial.seed), ("unfinished", None))
        return (status, error) if status in ("stopped", "failed") else ("unfinished", None)

    def _ended(self, trial: Trial) -> str | None:
        """How a trial that has a summary ended; None without one."""
        path = self.run(trial) / "summary.json"
        if not path.is_file():
            return None
        return "finished" if json.loads(path.read_text())["ended"] == "all steps" else "stopped"

    def _read(self) -> dict[tuple[str, int], tuple[str, str | None]]:
        """Status and error of each trial, as written down before."""
        if not self.path.is_file():
            return {}
        try:
            rows = json.loads(self.path.read_text())["trials"]
            return {(row["trial"], row["seed"]): (row["status"], row["error"]) for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.path} cannot be read ({type(error).__name__}: {error}): delete it, the runs tell what is finished"
            ) from error


def _run(
    cfg: Config, ledger: Ledger, stop_asked: Callable[[], bool], view: SweepView, address: str | None
) -> None:
    """Make what the waiting trials start from, and run them."""
    for trial in ledger.waiting:  # what failed before is tried again
        ledger.note(trial, "unfinished", None)
    ready = _make_ready(ledger, stop_asked, view, address)
    if stop_asked():
        return
    from jobs.tune_trials import TrialWatch, run_trials

    def ended(trial: Trial, status: str, error: str | None) -> None:
        view.ended(ledger.note(trial, status, error))

    watch = TrialWatch(view.began, view.step, view.retried, ended)
    run_trials(ready, cfg.sweep, ledger.out / TUNE_FOLDER, stop_asked, watch)


def _make_ready(
    ledger: Ledger, stop_asked: Callable[[], bool], view: SweepView, address: str | None
) -> "list[ReadyTrial]":
    """The trials with what they start from; trials of a seed that agree on a stage share it."""
    from jobs.tune_trials import ReadyTrial

    ready = []
    for trial in ledger.waiting:
        if stop_asked():
            break
        run = ledger.run(trial).resolve()  # trials run in another folder
        inputs = make_inputs(trial.cfg, trial.name, run, view.stage, address)
        score_pool(inputs, view.stage)
        spec = load_spec(trial.cfg.cluster)
        layout = run_bundles(spec, trial.cfg.backend == "inline")
        ready.append(ReadyTrial(trial, inputs, tuple(layout), spec.strategy))
    return ready


def _assert_fits(trials: Sequence[Trial], nodes: Sequence[Node]) -> None:
    """Refuse a trial that the cluster could not hold even when idle, before anything is fitted for it.

    Raises:
        PlacementError: with what the trial asks for and what there is.
    """
    for trial in {(trial.cfg.cluster, trial.cfg.backend): trial for trial in trials}.values():
        spec = load_spec(trial.cfg.cluster)
        layout = run_bundles(spec, trial.cfg.backend == "inline")
        plan = explain(layout, nodes, spec.strategy)
        if plan.problem:
            raise PlacementError(
                f"sweep: a trial needs {len(layout)} workers at once, and {plan.problem}; choose a smaller layout "
                "with cluster= or add nodes"
            )


def _same(before: Config, now: Config) -> bool:
    """Whether two configurations are one sweep: it may have got more seeds, and be run elsewhere."""

    def identity(cfg: Config) -> tuple[Any, ...]:
        return cfg.fingerprint(), cfg.study_runs(), cfg.sweep.all_points(), cfg.sweep.scheduler, cfg.best_of_n

    return identity(before) == identity(now)
