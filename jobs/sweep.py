"""`goldilocks sweep`: what trials start from, the trials on Ray Tune, then one table, its analysis and a report.

A killed sweep goes on by its run folders: a trial with a summary is finished and is left alone, any other goes on
from its own checkpoint.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.plan import Node, explain, run_bundles
from cluster.session import connect
from cluster.spec import load_spec
from framework.analysis.sweep_columns import COMPLETE
from framework.analysis.sweep_table import SweepTable, TrialRecord, build_table, read_table
from framework.artifacts import write_text
from framework.config import Config, load_config
from framework.errors import GoldilocksError, PlacementError, UserError, one_line
from framework.sweep import Trial, trials_of
from jobs.run_inputs import ShowStage, make_inputs, score_pool
from jobs.stages import check_prompts
from jobs.trial_ledger import Ledger
from jobs.workspace import alone_in, assert_free, claim

if TYPE_CHECKING:  # the latter imports Ray, which reads its environment when it is first imported
    from framework.analysis.sweep_analysis import SweepAnalysis
    from jobs.tune_trials import ReadyTrial

SWEEP_FILE = "sweep.yaml"
TABLE_FILE = "results.parquet"
ANALYSIS_FILE = "analysis.json"
TUNE_FOLDER = "tune"


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
    stopped: bool = False
    """Whether it was stopped before every trial that failed earlier had begun again."""

    @property
    def interrupted(self) -> bool:
        """Whether some trial has yet to be run to its end, or to be tried again."""
        return self.stopped or any(record.status == "unfinished" for record in self.records)

    @property
    def failed(self) -> list[TrialRecord]:
        """The trials that could not be run."""
        return [record for record in self.records if record.status == "failed"]


def run_sweep(
    cfg: Config, out: Path, stop_asked: Callable[[], bool], view: SweepView, address: str | None = None
) -> SweepResult:
    """Run every trial that is not finished yet, then write the table, the analysis and the report.

    Raises:
        UserError: a trial's configuration is not valid, or the folder holds something else, or a sweep that runs.
        PlacementError: a trial asks for more than the cluster has.
    """
    trials = trials_of(cfg)
    for tree in {trial.cfg.world.model_dump_json(): trial.cfg for trial in trials}.values():
        check_prompts(tree)

    def holds_same(file: Path) -> bool:
        return _same(load_config(file), cfg, out)

    assert_free(out / SWEEP_FILE, "sweep", holds_same)  # before anything is written there
    with alone_in(out, "sweep"):
        claim(out / SWEEP_FILE, cfg.to_yaml(), "sweep", holds_same)
        return _run_claimed(cfg, out, trials, stop_asked, view, address)


def _run_claimed(
    cfg: Config,
    out: Path,
    trials: Sequence[Trial],
    stop_asked: Callable[[], bool],
    view: SweepView,
    address: str | None,
) -> SweepResult:
    """Run the trials in a folder that is this sweep's."""
    ledger = Ledger(out, trials)
    ledger.write()
    for record in ledger.records():
        if record.status in COMPLETE:
            view.ended(record)
    stopped = False
    if ledger.waiting:
        with connect(address, load_spec(cfg.cluster), namespace="sweep") as session:
            _assert_fits(ledger.waiting, session.nodes())
            stopped = not _run(cfg, ledger, stop_asked, view, address)
    result = SweepResult(out, ledger.records(), stopped=stopped)
    return result if result.interrupted else finish_sweep(result, cfg.sweep.epsilon)


def finish_sweep(result: SweepResult, epsilon: float | None, table: SweepTable | None = None) -> SweepResult:
    """Write the table, unless one is given, its analysis and the report, without running anything.

    The table of a sweep with trials to run yet is not kept: half a table looks like a whole one.

    Args:
        epsilon: gold units that the advice may give up.
    """
    # Imported here: a sweep begins seconds sooner without statistics and drawing.
    from framework.analysis.sweep_analysis import analyse_sweep
    from framework.report.sweep import write_sweep_report

    if table is None:
        if not any(record.run for record in result.records):
            return result  # every trial failed before its first step: trials.json says why
        table = build_table(result.records)
        if not result.interrupted:
            table = read_table(table.write(result.out / TABLE_FILE))
    result.analysis = analyse_sweep(table, epsilon)
    text = json.dumps(result.analysis.to_json(), indent=2, allow_nan=False) + "\n"
    write_text(result.out / ANALYSIS_FILE, text)
    result.report = write_sweep_report(result.out, table, result.analysis, result.records)
    return result


def report_sweep(out: Path) -> SweepResult:
    """Analyse and report a sweep again: from its runs, or from its table where runs that it was made of are gone.

    Raises:
        UserError: no trial has logged a step.
    """
    cfg = load_config(out / SWEEP_FILE)
    ledger = Ledger(out, trials_of(cfg))
    result, path = SweepResult(out, ledger.records()), out / TABLE_FILE
    if path.is_file() and ledger.has_lost_runs:
        return finish_sweep(result, cfg.sweep.epsilon, read_table(path))
    if not any(record.run for record in result.records):
        raise UserError(f"{out} holds a sweep without a step: go on with `goldilocks sweep --resume {out}`")
    return finish_sweep(result, cfg.sweep.epsilon)


def _run(
    cfg: Config, ledger: Ledger, stop_asked: Callable[[], bool], view: SweepView, address: str | None
) -> bool:
    """Make what the waiting trials start from, and run them; False where a stop was asked before all had begun."""
    begun: set[str] = set()

    def began(trial: Trial) -> None:
        begun.add(trial.id)
        ledger.note(trial, "unfinished", None)  # what failed before is tried again
        view.began(trial)

    def ended(trial: Trial, status: str, error: str | None) -> None:
        if status != "unfinished" or trial.id in begun:
            view.ended(ledger.note(trial, status, error))

    ready = _make_ready(ledger, stop_asked, view, address)
    if stop_asked():
        return False
    if not ready:
        return True
    from jobs.tune_trials import TrialWatch, run_trials

    watch = TrialWatch(began, view.step, view.retried, ended)
    run_trials(ready, cfg.sweep, ledger.out / TUNE_FOLDER, stop_asked, watch)
    return len(begun) == len(ready)


def _make_ready(
    ledger: Ledger, stop_asked: Callable[[], bool], view: SweepView, address: str | None
) -> "list[ReadyTrial]":
    """The trials with what they start from; trials of a seed that agree on a stage share it.

    A trial without is noted as failed, and the others go on. Where one mistake leaves none, it is raised.
    """
    ready: list[ReadyTrial] = []
    failed: dict[str, GoldilocksError] = {}
    """What stopped a stage, by the settings that stages may depend on: it is not tried for each trial that shares it."""
    for trial in ledger.waiting:
        if stop_asked():
            return ready
        settings = trial.cfg.model_dump_json(exclude={"kl"})  # no stage depends on the KL controller
        try:
            if settings in failed:
                raise failed[settings]
            ready.append(_ready(trial, ledger.run(trial).resolve(), view, address))
        except GoldilocksError as error:
            failed[settings] = error
            view.ended(ledger.note(trial, "failed", one_line(error)))
    mistakes = {str(error): error for error in failed.values() if isinstance(error, UserError)}
    if failed and not ready and len(mistakes) == len({str(error) for error in failed.values()}) == 1:
        raise next(iter(mistakes.values()))
    return ready


def _ready(trial: Trial, run: Path, view: SweepView, address: str | None) -> "ReadyTrial":
    """A trial with what it starts from; `run` is absolute, for trials run in another folder."""
    from jobs.tune_trials import ReadyTrial

    inputs = make_inputs(trial.cfg, trial.name, run, view.stage, address)
    score_pool(inputs, view.stage)
    spec = load_spec(trial.cfg.cluster)
    layout = run_bundles(spec, trial.cfg.backend == "inline")
    return ReadyTrial(trial, inputs, tuple(layout), spec.strategy)


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


def _same(before: Config, now: Config, out: Path) -> bool:
    """Whether two configurations are one sweep: it may have got more seeds, and be run elsewhere.

    Raises:
        UserError: they are but for seeds that are there and not asked for: their trials would leave the table.
    """

    def identity(cfg: Config) -> tuple[Any, ...]:
        return cfg.fingerprint(), cfg.study_runs(), cfg.sweep.all_points(), cfg.sweep.scheduler, cfg.best_of_n

    if identity(before) != identity(now):
        return False
    if missing := [seed for seed in before.seeds if seed not in now.seeds]:
        held = ", ".join(map(str, before.seeds))
        raise UserError(
            f"{out} holds this sweep with the seeds {held}, and {', '.join(map(str, missing))} would be missing: "
            f"set seeds=[{held}] or more, go on with `goldilocks sweep --resume {out}`, or choose another --out"
        )
    return True
