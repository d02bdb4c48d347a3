"""Trials on Ray Tune: each in a placement group of its own, as many at a time as the cluster holds.

Tune decides what runs when, tries again what failed, and keeps its own logs. What is finished is told by the run
folders: nothing that Tune pickled is ever read.
"""

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from cluster.placement import resources
from cluster.plan import Bundle
from framework.errors import GoldilocksError, UserError, one_line
from framework.sweep import Asha, Sweep, Trial
from jobs.run_inputs import RunInputs
from jobs.train import RunContext, start_run
from jobs.tune_logs import CsvLog, JsonLog, Reporter

HALT_FILE = "stopping"
"""In the folder of Tune's logs while the sweep stops; trials look for it between steps."""
MISTAKE_FILE = "mistake.txt"
"""In the folder of a trial's logs: what its user has to mend, in one line."""


@dataclass(frozen=True)
class ReadyTrial:
    """A trial that may begin."""

    trial: Trial
    inputs: RunInputs
    layout: tuple[Bundle, ...]
    """What it asks of the cluster."""
    strategy: str
    """How its bundles are spread."""


@dataclass(frozen=True)
class TrialWatch:
    """Told what becomes of the trials, in the process that runs the sweep."""

    began: Callable[[Trial], None] = lambda trial: None
    step: Callable[[Trial, dict[str, Any]], None] = lambda trial, metrics: None
    retried: Callable[[Trial, str], None] = lambda trial, error: None
    ended: Callable[[Trial, str, str | None], None] = lambda trial, status, error: None
    """`failed` with the line of its error, `stopped` by the scheduler, or `unfinished` as far as is known here:
    its run folder tells whether it came to its end."""


def run_trials(
    ready: Sequence[ReadyTrial], sweep: Sweep, folder: Path, stop_asked: Callable[[], bool], watch: TrialWatch
) -> None:
    """Run all trials to their ends, or to a checkpoint once `stop_asked`; what became of each is told to `watch`.

    Args:
        folder: where Tune writes its logs, one folder to a trial.
    """
    _quiet()
    folder = folder.resolve()  # trials look for the halt file from a folder of Tune's
    folder.mkdir(parents=True, exist_ok=True)
    by_id = {one.trial.id: one for one in ready}
    halt = folder / HALT_FILE
    halt.unlink(missing_ok=True)
    for id in by_id:
        (folder / id / MISTAKE_FILE).unlink(missing_ok=True)
    stopped: set[str] = set()
    teller = _Teller({id: one for id, one in by_id.items()}, watch, stop_asked, halt, stopped)
    trainable = tune.with_parameters(_run_trial, by_id=by_id, halt=halt, current=Path.cwd())
    tuner = tune.Tuner(
        tune.with_resources(trainable, lambda config: _group(by_id[config["trial"]])),
        param_space={"trial": tune.grid_search(list(by_id))},
        tune_config=tune.TuneConfig(
            scheduler=_scheduler(sweep, by_id, stopped),
            trial_name_creator=_id_of,
            trial_dirname_creator=_id_of,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=tune.FailureConfig(max_failures=sweep.retries),
            callbacks=[teller, JsonLog(), CsvLog()],
            stop=_Stopper(teller),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        halt.unlink(missing_ok=True)
        teller.close()


def _id_of(trial: Any) -> str:
    """The folder of a trial in Tune's words."""
    return str(trial.config["trial"])


def _quiet() -> None:
    """Tune's own tables and advice make way for ours; its logs on disk stay."""
    # Our logs are small and our checkpoints are not Tune's: its warning about frequent snapshots is for others.
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # the first signal saves; see HALT_FILE
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # they are in each trial's `error.txt`
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def _group(one: ReadyTrial) -> Any:
    """The placement group of a trial: its workers' bundles, and nothing for the loop that drives them.

    The driver of a run claims nothing elsewhere either; a share for it would let fewer trials onto a machine
    than `study` puts there. An inline trial is one worker, and sits in the only bundle.
    """
    workers = [resources(bundle) for bundle in one.layout]
    seated = one.inputs.cfg.backend == "ray"
    return tune.PlacementGroupFactory([{}, *workers] if seated else workers, strategy=one.strategy)


def _run_trial(config: dict[str, Any], by_id: Mapping[str, ReadyTrial], halt: Path, current: Path) -> None:
    """One trial, in a process of the cluster.

    Raises:
        GoldilocksError: what stopped it, in one line; Tune may begin it again. What its user has to mend is written
            down instead, for another try would not mend it.
    """
    # The next trial in this process waits for this one's roles to close.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "60"
    one = by_id[config["trial"]]
    if halt.exists():
        return
    inputs, reporter = one.inputs, Reporter()
    context = RunContext(
        lambda: reporter.stopped or halt.exists(), reporter.show, seated=inputs.cfg.backend == "ray"
    )
    try:
        with _in_folder(current), contextlib.closing(reporter):
            start_run(inputs.cfg, inputs.run, inputs.policy, inputs.reward, context)
    except UserError as error:
        mistake = halt.parent / one.trial.id / MISTAKE_FILE
        mistake.parent.mkdir(exist_ok=True)
        mistake.write_text(one_line(error))
    except GoldilocksError as error:
        # Without the notes and causes, the last line of what Tune writes down is the message.
        raise type(error)(one_line(error)) from None
    if reporter.stopped:
        sys.exit(0)  # as Tune would have done where it is told the numbers


@contextlib.contextmanager
def _in_folder(path: Path) -> Iterator[None]:
    """Relative paths mean what they mean where the sweep was begun; Tune has moved this process elsewhere."""
    if not path.is_dir():  # another machine
        yield
        return
    with contextlib.chdir(path):
        yield


@dataclass
class _Teller(tune.Callback):
    """Tells `watch` what Tune does."""

    by_id: Mapping[str, ReadyTrial]
    watch: TrialWatch
    stop_asked: Callable[[], bool]
    halt: Path
    stopped: set[str]
    """Ids of trials that the scheduler ended."""
    active: set[str] = field(default_factory=set)
    awaited: set[str] | None = None
    """Once a stop was asked for: the trials that were running then."""
    told: set[str] = field(default_factory=set)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes a pickle of itself that nobody reads, and a terminal does not pickle."""
        return {}

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        if self.awaited is None and self.stop_asked():
            self.halt.touch()
            self.awaited = set(self.active)

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.active.add(_id_of(trial))
        if self.awaited is None:
            self.watch.began(self.by_id[_id_of(trial)].trial)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        self.watch.step(self.by_id[_id_of(trial)].trial, result)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.active.discard(_id_of(trial))
        self.watch.retried(self.by_id[_id_of(trial)].trial, _error_line(trial))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._keep_logs(trial)
        self._ended(_id_of(trial), _error_line(trial))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._keep_logs(trial)
        mistake = self.halt.parent / _id_of(trial) / MISTAKE_FILE
        self._ended(_id_of(trial), mistake.read_text() if mistake.is_file() else None)

    def is_over(self) -> bool:
        """Whether a stop was asked for, and every trial that was running has saved and stopped."""
        return self.awaited is not None and not self.awaited & self.active

    def close(self) -> None:
        """Tell of the trials that nothing was heard of: those that had not begun."""
        for id in self.by_id:
            if id not in self.told:
                self._ended(id, None)

    def _keep_logs(self, trial: Any) -> None:
        """Put Tune's logs of a trial where they belong: Tune itself does so every ten seconds, and a kill may be first."""
        if trial.local_path and Path(trial.local_path).is_dir():
            shutil.copytree(trial.local_path, self.halt.parent / _id_of(trial), dirs_exist_ok=True)

    def _ended(self, id: str, error: str | None) -> None:
        self.active.discard(id)
        self.told.add(id)
        status = "failed" if error else "stopped" if id in self.stopped else "unfinished"
        self.watch.ended(self.by_id[id].trial, status, error)


class _Stopper(tune.Stopper):
    """Ends the experiment once the trials that were running have saved."""

    def __init__(self, teller: _Teller) -> None:
        self.teller = teller

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.teller.is_over()


def _error_line(trial: Any) -> str:
    """What stopped a trial the last time, in one line; the whole of it is in Tune's `error.txt`."""
    path = trial.error_file
    text = Path(path).read_text() if path and Path(path).is_file() else ""
    last = text.rpartition("Failure # ")[2].strip()
    if "RayTaskError" not in last and "ray::" not in last:
        return f"its process died: {' '.join(last.split())[:300]}"
    kind, _, message = last.splitlines()[-1].partition(": ")
    return message if kind.startswith("framework.errors.") else last.splitlines()[-1]


def _scheduler(sweep: Sweep, by_id: Mapping[str, ReadyTrial], stopped: set[str]) -> TrialScheduler:
    return (
        _WithinBudgets(sweep.scheduler, by_id, stopped) if sweep.scheduler.kind == "asha" else FIFOScheduler()
    )


class _WithinBudgets(FIFOScheduler):
    """Successive halving among the trials of each budget, which know nothing of the others."""

    def __init__(self, settings: Asha, by_id: Mapping[str, ReadyTrial], stopped: set[str]) -> None:
        super().__init__()
        self._settings, self._by_id, self._stopped = settings, by_id, stopped
        budgets = {one.trial.budget for one in by_id.values()}
        steps = max(one.inputs.cfg.steps for one in by_id.values())
        self._halvings = {
            budget: ASHAScheduler(
                time_attr="steps_done",
                metric=settings.metric,
                mode="max",
                max_t=steps,
                grace_period=min(settings.grace_steps, steps),
                reduction_factor=settings.reduction_factor,
                stop_last_trials=False,
            )
            for budget in budgets
        }

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._halving(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        steps_done = result.get("step", 0) + 1
        is_last = steps_done >= self._by_id[_id_of(trial)].inputs.cfg.steps
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
        return self._halvings[self._by_id[_id_of(trial)].trial.budget]
