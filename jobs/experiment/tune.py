"""Runs on Ray Tune: each in a placement group of its own, as many at a time as the cluster holds.

Tune decides what runs when, and tries again what failed. What is finished is told by the run folders: nothing that Tune
writes is ever read again, and it writes to a temporary folder.
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from cluster.placement import resources
from framework.analysis.records import Status
from framework.errors import GoldilocksError, UserError, one_line
from framework.sweep import Asha, Sweep
from jobs.experiment.ledger import Ledger
from jobs.experiment.run import ExperimentView, ReadyRun
from jobs.run_folder import RunContext, make_run

HALT_FILE = ".stopping"
"""In the experiment's folder while it stops; runs look for it between steps."""
MISTAKE = "mistake"
"""Reported in place of metrics: what its user has to mend in a run, in one line."""


def run_on_tune(
    ready: Sequence[ReadyRun], sweep: Sweep, ledger: Ledger, stop_asked: Callable[[], bool], view: ExperimentView
) -> bool:
    """Run all to their ends, or to a checkpoint once `stop_asked`; False where that left some that had not begun."""
    _quiet()
    by_id = {one.planned.id: one for one in ready}
    halt = ledger.out.resolve() / HALT_FILE
    halt.unlink(missing_ok=True)
    stopped: set[str] = set()
    callback = _TuneCallback(by_id, ledger, view, stop_asked, halt, stopped)
    trainable = tune.with_parameters(_run_trial, by_id=by_id, halt=halt, current=Path.cwd())
    asha = sweep.scheduler if sweep.scheduler.kind == "asha" else None
    scheduler = _WithinBudgets(asha, by_id, stopped) if asha else FIFOScheduler()
    failures = tune.FailureConfig(max_failures=sweep.retries)
    with tempfile.TemporaryDirectory(prefix="goldilocks-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(trainable, lambda config: _group(by_id[config["run"]])),
            param_space={"run": tune.grid_search(list(by_id))},
            tune_config=tune.TuneConfig(
                scheduler=scheduler, trial_name_creator=_id_of, trial_dirname_creator=_id_of, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                "tune", scratch, failure_config=failures, callbacks=[callback], stop=callback, verbose=0
            ),
        )
        try:
            tuner.fit()
        finally:
            halt.unlink(missing_ok=True)
            callback.close()
    return len(callback.begun) == len(ready)


def _id_of(trial: Any) -> str:
    """The run that a trial is."""
    return str(trial.config["run"])


def _quiet() -> None:
    """Tune's own tables, logs and advice make way for ours."""
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # the first signal saves; see HALT_FILE
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # metrics.jsonl and TensorBoard have it all
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # each is told in one line
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def _group(one: ReadyRun) -> Any:
    """The placement group of a run: its workers' bundles, and nothing for the loop that drives them.

    The driver of a run claims nothing elsewhere either. An inline run is one worker, and sits in the only bundle.
    """
    workers = [resources(bundle) for bundle in one.layout]
    in_placement = one.inputs.cfg.backend == "ray"
    return tune.PlacementGroupFactory([{}, *workers] if in_placement else workers, strategy=one.strategy)


def _run_trial(config: dict[str, Any], by_id: Mapping[str, ReadyRun], halt: Path, current: Path) -> None:
    """One run, in a process of the cluster. Raises what stopped it, in one line: Tune may begin it again.

    What its user has to mend is reported instead, for another try would not mend it.
    """
    # The next run in this process waits for this one's roles to close.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "60"
    one = by_id[config["run"]]
    if halt.exists():
        return

    def show(step: int, metrics: dict[str, Any]) -> None:
        """Tell Tune a step's numbers; lists stay in the run folder. Where the scheduler ends the run, this does not return."""
        tune.report({name: value for name, value in metrics.items() if not isinstance(value, list)})

    # A driver that was killed may have left a process that is about to die in the run's folder.
    context = RunContext(halt.exists, show, patience_seconds=60, in_placement=one.inputs.cfg.backend == "ray")
    try:
        with _in_folder(current):
            make_run(one.inputs, one.folder, context)
    except UserError as error:
        tune.report({MISTAKE: one_line(error)})
    except GoldilocksError as error:
        # Without the notes and causes, the last line of what Tune writes down is the message.
        raise type(error)(one_line(error)) from None


@contextlib.contextmanager
def _in_folder(path: Path) -> Iterator[None]:
    """Relative paths mean what they mean where the experiment was begun; Tune has moved this process elsewhere."""
    if not path.is_dir():  # another machine
        yield
        return
    with contextlib.chdir(path):
        yield


@dataclass
class _TuneCallback(tune.Callback, tune.Stopper):
    """Notes and shows what Tune does, and ends the experiment once the runs that were going on at a stop have saved."""

    by_id: Mapping[str, ReadyRun]
    ledger: Ledger
    view: ExperimentView
    stop_asked: Callable[[], bool]
    halt: Path
    stopped: set[str]
    """Ids of runs that the scheduler ended."""
    active: set[str] = field(default_factory=set)
    awaited: set[str] | None = None
    """Once a stop was asked for: the runs that were going on then."""
    begun: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes a pickle of itself that nobody reads, and a terminal does not pickle."""
        return {}

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        if self.awaited is None and self.stop_asked():
            self.halt.touch()
            self.awaited = set(self.active)

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        id = _id_of(trial)
        self.active.add(id)
        if self.awaited is None:
            self.begun.add(id)
            self.ledger.note(self.by_id[id].planned, "unfinished", None)  # what failed before is tried again
            self.view.began(self.by_id[id].planned)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        if MISTAKE not in result:
            self.view.step(self.by_id[_id_of(trial)].planned, result)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.active.discard(_id_of(trial))
        self.view.retried(self.by_id[_id_of(trial)].planned, _error_line(trial))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._end(_id_of(trial), _error_line(trial))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._end(_id_of(trial), trial.last_result.get(MISTAKE))

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False  # no run ends by itself

    def stop_all(self) -> bool:
        return self.awaited is not None and not self.awaited & self.active

    def close(self) -> None:
        """Tell of the runs that nothing was heard of: those that had not begun."""
        for id in self.by_id:
            if id not in self.ended:
                self._end(id, None)

    def _end(self, id: str, error: str | None) -> None:
        self.active.discard(id)
        self.ended.add(id)
        status: Status = "failed" if error else "stopped" if id in self.stopped else "unfinished"
        if id in self.begun or status != "unfinished":  # else what it was before, failed perhaps, still stands
            self.view.ended(self.ledger.note(self.by_id[id].planned, status, error))


def _error_line(trial: Any) -> str:
    """What stopped a run the last time, in one line; the whole of it is in Tune's `error.txt`."""
    path = trial.error_file
    text = Path(path).read_text(encoding="utf-8") if path and Path(path).is_file() else ""
    last = text.rpartition("Failure # ")[2].strip()
    if "RayTaskError" not in last and "ray::" not in last:
        return f"its process died: {' '.join(last.split())[:300]}"
    kind, _, message = last.splitlines()[-1].partition(": ")
    return message if kind.startswith("framework.errors.") else last.splitlines()[-1]


class _WithinBudgets(FIFOScheduler):
    """Successive halving among the runs of each budget, which know nothing of the others."""

    def __init__(self, settings: Asha, by_id: Mapping[str, ReadyRun], stopped: set[str]) -> None:
        super().__init__()
        self._settings, self._by_id, self._stopped = settings, by_id, stopped
        steps = max(one.inputs.cfg.train.length for one in by_id.values())
        grace, ratio = min(settings.grace_steps, steps), settings.reduction_factor
        rungs: dict[str, Any] = {"max_t": steps, "grace_period": grace, "reduction_factor": ratio}
        seen: dict[str, Any] = {"time_attr": "steps_done", "metric": settings.metric, "mode": "max"}
        budgets = {one.planned.record.budget for one in by_id.values()}
        self._halvings = {own: ASHAScheduler(**seen, **rungs, stop_last_trials=False) for own in budgets}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._halving(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        steps_done = result.get("step", 0) + 1
        is_last = steps_done >= self._by_id[_id_of(trial)].inputs.cfg.train.length
        if result.get(self._settings.metric) is None or is_last:
            return str(TrialScheduler.CONTINUE)
        seen = result | {"steps_done": steps_done}
        decision = self._halving(trial).on_trial_result(tune_controller, trial, seen)
        if decision == TrialScheduler.STOP:
            self._stopped.add(_id_of(trial))
        return str(decision)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Nothing: what its last result decides was decided when it came."""

    def _halving(self, trial: Any) -> Any:
        return self._halvings[self._by_id[_id_of(trial)].planned.record.budget]
