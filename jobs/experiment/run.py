"""An experiment from its plan to its report: what runs start from, the runs on Ray Tune, one table, its analysis, a page.

A killed experiment goes on by its run folders: a run with a summary is finished and is left alone, any other goes on
from its own checkpoint.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.plan import Bundle, Node, explain
from cluster.session import connect, live_nodes
from framework.analysis.records import RunRecord
from framework.artifacts import write_text
from framework.config import Config, load_config
from framework.errors import GoldilocksError, PlacementError, UserError, one_line
from framework.training import Progress
from jobs.chain import Chain, ShowStage
from jobs.experiment.ledger import Ledger
from jobs.experiment.plan import PlannedRun, plan_of
from jobs.fit_on_ray import fitting_beside
from jobs.layouts import layout_of, load_layout
from jobs.run_folder import RunInputs
from jobs.stages import check_prompts
from jobs.workspace import claimed

if TYPE_CHECKING:
    from framework.analysis.experiment import Experiment
    from framework.analysis.table import Table

EXPERIMENT_FILE, TABLE_FILE, SUMMARY_FILE = "experiment.yaml", "results.parquet", "summary.json"


@dataclass(frozen=True)
class ExperimentView:
    """Where an experiment shows its progress; the default shows nothing."""

    stage: ShowStage = lambda name: None
    began: Callable[[PlannedRun], None] = lambda run: None
    step: Callable[[PlannedRun, dict[str, Any]], None] = lambda run, metrics: None
    """Told each step's number and metrics."""
    retried: Callable[[PlannedRun, str], None] = lambda run, error: None
    """Told what stopped a run that is begun again."""
    ended: Callable[[RunRecord], None] = lambda record: None


@dataclass(frozen=True)
class ReadyRun:
    """A run that may begin."""

    planned: PlannedRun
    inputs: RunInputs
    folder: Path
    """Absolute: its process starts in another one."""
    layout: tuple[Bundle, ...]
    """What it asks of the cluster."""
    strategy: str
    """How its bundles are spread."""


@dataclass
class ExperimentResult:
    """How an experiment ended."""

    out: Path
    records: list[RunRecord] = field(default_factory=list)
    experiment: "Experiment | None" = None
    """None where no run has data, or the experiment was interrupted."""
    report: Path | None = None
    stopped: bool = False
    """Whether it was stopped before every run that failed earlier had begun again."""

    @property
    def interrupted(self) -> bool:
        """Whether some run has yet to be run to its end, or to be tried again."""
        return self.stopped or any(record.status == "unfinished" for record in self.records)

    @property
    def failed(self) -> list[RunRecord]:
        """The runs that could not be run."""
        return [record for record in self.records if record.status == "failed"]


def run_experiment(
    cfg: Config, out: Path, stop_asked: Callable[[], bool], view: ExperimentView, address: str | None = None
) -> ExperimentResult:
    """Run every run that is not finished yet, then write the table, the analysis and the report.

    A UserError where a run's configuration is not valid, or the folder holds something else, or an experiment that
    runs; a PlacementError where a run asks for more than the cluster has.
    """
    plan = plan_of(cfg)
    for run in plan:
        run.cfg.check_scorers()
    for tree in {run.cfg.world.model_dump_json(): run.cfg for run in plan}.values():
        check_prompts(tree)
    for tracker in {tracker for run in plan for tracker in run.cfg.trackers}:
        tracker.assert_ready()

    with claimed(out / EXPERIMENT_FILE, cfg.to_yaml(), lambda file: _same(load_config(file), cfg, out)):
        ledger = Ledger(out, plan)
        ledger.assert_same_runs()
        ledger.write()
        for record in ledger.records():
            if record.is_complete:
                view.ended(record)
        stopped = False
        if ledger.waiting:
            with connect(address, load_layout(cfg.cluster), namespace=out.resolve().name):
                _assert_fits(ledger.waiting, live_nodes())
                stopped = not _run(cfg, ledger, stop_asked, view, address)
        result = ExperimentResult(out, ledger.records(), stopped=stopped)
        return result if result.interrupted else _finish(result, cfg)


def report_experiment(out: Path, live: bool = False) -> ExperimentResult:
    """Analyse and report an experiment again: from its runs, or from its table where runs that it was made of are gone.

    `live` has the page say that runs still go on. A UserError where no run has logged a step.
    """
    from framework.analysis.table import read_table

    cfg = load_config(out / EXPERIMENT_FILE)
    ledger = Ledger(out, plan_of(cfg))
    result, path = ExperimentResult(out, ledger.records()), out / TABLE_FILE
    if path.is_file() and ledger.has_lost_runs:
        table = read_table(path)
        ended = {(record.run, record.seed): record.status for record in table.records}
        result.records = [replace(r, status=ended.get((r.run, r.seed), r.status)) for r in result.records]
        return _finish(result, cfg, table, live)
    if not any(record.folder for record in result.records):
        raise UserError(f"{out} holds an experiment without a step: run it again with --resume {out} to go on")
    return _finish(result, cfg, live=live)


def _finish(
    result: ExperimentResult, cfg: Config, table: "Table | None" = None, live: bool = False
) -> ExperimentResult:
    """Write the table, unless one is given, its analysis and the report, without running anything.

    The table of an experiment with runs to make yet is not kept: half a table looks like a whole one.
    """
    # Imported here: an experiment begins seconds sooner without statistics and drawing.
    from framework.analysis.experiment import analyse
    from framework.analysis.table import build_table, read_table
    from framework.report import write_report

    if table is None:
        if not any(record.folder for record in result.records):
            return result  # every run failed before its first step: runs.json says why
        table = build_table(result.records)
        if not result.interrupted:
            table = read_table(table.write(result.out / TABLE_FILE))
    name = result.out.resolve().name
    result.experiment = analyse(name, table, result.records, cfg.baseline, cfg.sweep.epsilon)
    text = json.dumps(result.experiment.to_json(), indent=2, allow_nan=False) + "\n"
    write_text(result.out / SUMMARY_FILE, text)
    result.report = write_report(result.experiment, result.out, live)
    return result


def _run(
    cfg: Config, ledger: Ledger, stop_asked: Callable[[], bool], view: ExperimentView, address: str | None
) -> bool:
    """Make what the waiting runs start from, and run them; False where a stop was asked before all had begun."""
    ready = _make_ready(ledger, stop_asked, view, address)
    if stop_asked():
        return False
    if not ready:
        return True
    from jobs.experiment.tune import run_on_tune  # Ray reads its environment when it is first imported

    return run_on_tune(ready, cfg.sweep, ledger, stop_asked, view)


def _make_ready(
    ledger: Ledger, stop_asked: Callable[[], bool], view: ExperimentView, address: str | None
) -> list[ReadyRun]:
    """The runs with what they start from; runs of a seed that agree on a stage share it.

    A run without is noted as failed, and the others go on. Where one mistake leaves none, it is raised.
    """
    ready: list[ReadyRun] = []
    failed: dict[str, GoldilocksError] = {}
    """What stopped a stage, by the settings that stages depend on: it is not tried for each run that shares it."""
    for run in ledger.waiting:
        if stop_asked():
            return ready
        settings = run.cfg.model_dump_json(exclude={"train"})
        try:
            if settings in failed:
                raise failed[settings]
            ready.append(_ready(run, ledger.folder(run).resolve(), view, address))
        except GoldilocksError as error:
            failed[settings] = error
            view.ended(ledger.note(run, "failed", one_line(error)))
    mistakes = {str(error): error for error in failed.values() if isinstance(error, UserError)}
    if failed and not ready and len(mistakes) == len({str(error) for error in failed.values()}) == 1:
        raise next(iter(mistakes.values()))
    return ready


def _ready(run: PlannedRun, folder: Path, view: ExperimentView, address: str | None) -> ReadyRun:
    """A run with what it starts from; its stages lie beside it, in the folder of its seed."""

    def show(stage: str) -> Progress | None:
        whose = f" {run.record.run}" if stage == "fit-reward" else ""
        return view.stage(f"seed {run.record.seed}: {stage}{whose}")

    chain = Chain(run.cfg, folder.parent.parent, show, fitting_beside(run.cfg, address))
    inputs = chain.inputs
    chain.score_pool(folder)
    spec, layout = layout_of(run.cfg)
    return ReadyRun(run, inputs, folder, tuple(layout), spec.strategy)


def _assert_fits(runs: Sequence[PlannedRun], nodes: Sequence[Node]) -> None:
    """Refuse a run that the cluster could not hold even when idle, before anything is fitted for it."""
    for run in {(run.cfg.cluster, run.cfg.backend): run for run in runs}.values():
        spec, layout = layout_of(run.cfg)
        if problem := explain(layout, nodes, spec.strategy).problem:
            mend = "choose a smaller layout with cluster= or add nodes"
            raise PlacementError(f"a run needs {len(layout)} workers at once, and {problem}; {mend}")


def _same(before: Config, now: Config, out: Path) -> bool:
    """Whether two are one experiment, run elsewhere or with more seeds; a UserError for seeds that would be lost."""

    def identity(cfg: Config) -> tuple[Any, ...]:
        plan = plan_of(cfg.model_copy(update={"seeds": (0,)}))
        runs = {run.record.run: (run.cfg.fingerprint(), run.cfg.best_of_n) for run in plan}
        return runs, cfg.baseline, cfg.sweep.scheduler

    if identity(before) != identity(now):
        return False
    if missing := [seed for seed in before.seeds if seed not in now.seeds]:
        held = ", ".join(map(str, before.seeds))
        raise UserError(
            f"{out} holds this experiment with the seeds {held}, and {', '.join(map(str, missing))} would be missing: "
            f"set seeds=[{held}] or more, go on with --resume {out}, or choose another --out"
        )
    return True
