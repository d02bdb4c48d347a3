"""Where the numbers of a run can be watched while it goes on: each under its group, each step once. Nothing is ever read
back from a tracker, and no run ends because one fails. The libraries of all but TensorBoard are extras."""

import importlib.util
import logging
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from framework.artifacts import write_text
from framework.component import Component
from framework.errors import RunError, UserError, one_line

GROUPS = {
    "reward": ("proxy", "gold", "reward"),
    "heads": ("disagreement", "head_", "length_correlation", "feature_distance"),
    "kl": ("kl_",),
}
"""Of a number, by how its name begins; all others are the policy's."""


@dataclass(frozen=True)
class TrackedRun:
    """A run, as a tracker is told of it."""

    folder: Path
    title: str
    settings: dict[str, Any]
    start_step: int = 0

    @property
    def id(self) -> str:
        """By which a tracker finds the run again; it is drawn once, and stays in the run's folder."""
        path = self.folder / "tracker_id.txt"
        if not path.is_file():
            write_text(path, secrets.token_hex(4) + "\n")
        return path.read_text(encoding="utf-8").strip()


@dataclass(frozen=True)
class Tracker:
    """One that is told the numbers of a run."""

    log: Callable[[int, Mapping[str, float]], None]  # takes a step and its numbers by `group/name`
    close: Callable[[], object]
    first: int  # the first step that it lacks


class TrackerSettings(Component):
    """Base of the trackers' settings."""

    package: ClassVar[str | None] = None
    """That has to be installed; the extra of that name brings it."""

    def assert_ready(self) -> None:
        """Refuse, before anything is spent on a run, one that could not be started here: a `UserError` says the cure."""
        if (name := self.package) and importlib.util.find_spec(name) is None:
            cure = f"pip install 'goldilocks[{name}]', or leave it out of trackers"
            raise UserError(f"trackers: {name} is not installed: {cure}")

    def start(self, run: TrackedRun) -> Tracker:
        """A tracker that goes on with what it has of this run."""
        raise NotImplementedError


class TensorBoard(TrackerSettings):
    """Event files in `tensorboard/` of the run's folder."""

    kind: Literal["tensorboard"] = "tensorboard"

    def start(self, run: TrackedRun) -> Tracker:
        """A writer. TensorBoard drops what an earlier one wrote of the steps that come again."""
        from tensorboardX import SummaryWriter

        folder = run.folder / "tensorboard"
        if run.start_step == 0:
            shutil.rmtree(folder, ignore_errors=True)
        writer = SummaryWriter(logdir=str(folder), purge_step=run.start_step)
        # One chart with both curves, under custom scalars.
        writer.add_custom_scalars({"reward": {"proxy and gold": ["Multiline", ["reward/proxy$", "reward/gold$"]]}})

        def log(step: int, numbers: Mapping[str, float]) -> None:
            for name, value in numbers.items():
                writer.add_scalar(name, value, step)

        return Tracker(log, writer.close, run.start_step)


class Wandb(TrackerSettings):
    """Weights & Biases. Offline, the folder `wandb/` of the run is for `wandb sync` once the run has ended."""

    kind: Literal["wandb"] = "wandb"
    project: str = "goldilocks"
    """That the runs are shown in."""
    mode: Literal["online", "offline"] | None = None
    """None: what WANDB_MODE says, else online."""

    package: ClassVar[str | None] = "wandb"

    def assert_ready(self) -> None:
        """Refuse a missing package, and a missing key."""
        super().assert_ready()
        import wandb

        if (self.mode or wandb.setup().settings.mode) == "online" and not wandb.login(prompt=False):
            raise UserError("trackers: wandb knows no API key: `wandb login`, or set mode: offline")

    def start(self, run: TrackedRun) -> Tracker:
        """The W&B run of this run's id. Offline it is written anew: a kill loses most."""
        import wandb

        mode = self.mode or wandb.setup().settings.mode
        if mode == "offline":
            shutil.rmtree(run.folder / "wandb", ignore_errors=True)
        whose = {"project": self.project, "id": run.id, "name": run.title, "config": run.settings}
        quiet = wandb.Settings(silent=True, console="off")
        started = wandb.init(**whose, mode=mode, resume="allow", dir=str(run.folder), settings=quiet)
        first = started.step if started.resumed else 0
        return Tracker(lambda step, numbers: started.log(dict(numbers), step=step), started.finish, first)


class MlFlow(TrackerSettings):
    """MLflow, on a tracking server or in a database file."""

    kind: Literal["mlflow"] = "mlflow"
    experiment: str = "goldilocks"
    """That the runs are shown in."""
    uri: str | None = None
    """Of the tracking server or database, for example `sqlite:////shared/mlflow.db`. None: what MLFLOW_TRACKING_URI says,
    else MLflow's own default."""

    package: ClassVar[str | None] = "mlflow"

    def start(self, run: TrackedRun) -> Tracker:
        """The MLflow run that carries this run's id as a tag."""
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the default waits for minutes
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        client = MlflowClient(tracking_uri=self.uri)
        known = client.get_experiment_by_name(self.experiment)
        experiment = known.experiment_id if known else client.create_experiment(self.experiment)
        if found := client.search_runs([experiment], f"tags.`goldilocks.id` = '{run.id}'"):
            id = found[0].info.run_id
            client.update_run(id, status="RUNNING")
        else:
            id = client.create_run(experiment, run_name=run.title, tags={"goldilocks.id": run.id}).info.run_id
            client.log_batch(id, params=[Param(name, str(value)[:6000]) for name, value in run.settings.items()])
        held = (metric.step for metric in client.get_metric_history(id, "time/seconds"))

        def log(step: int, numbers: Mapping[str, float]) -> None:
            now = round(time.time() * 1000)
            client.log_batch(id, metrics=[Metric(name, value, now, step) for name, value in numbers.items()])

        return Tracker(log, lambda: client.set_terminated(id), first=max(held, default=-1) + 1)


class Trackio(TrackerSettings):
    """trackio, in the folder TRACKIO_DIR or the Space TRACKIO_SPACE_ID. `trackio show --project PROJECT` shows it."""

    kind: Literal["trackio"] = "trackio"
    project: str = "goldilocks"
    """That the runs are shown in."""

    package: ClassVar[str | None] = "trackio"

    def start(self, run: TrackedRun) -> Tracker:
        """The trackio run of this run's title and id."""
        import trackio

        def close() -> None:
            with redirect_stdout(StringIO()):  # which holds the lines of the verb
                trackio.finish()

        name, quiet = f"{run.title}-{run.id}", {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
        with redirect_stdout(StringIO()):
            started = trackio.init(project=self.project, name=name, resume="allow", config=run.settings, **quiet)
        # trackio knows the next step and has no public name for it; without it a killed run would have steps twice.
        first = getattr(started, "_next_step", run.start_step)
        return Tracker(lambda step, numbers: started.log(dict(numbers), step=step), close, first)


AnyTracker = Annotated[TensorBoard | Wandb | MlFlow | Trackio, Field(discriminator="kind")]


def _each_once(trackers: tuple[AnyTracker, ...]) -> tuple[AnyTracker, ...]:
    kinds = [each.kind for each in trackers]
    if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
        raise ValueError(f"{twice[0]} is named twice: it would note every step as often")
    return trackers


Trackers = Annotated[tuple[AnyTracker, ...], AfterValidator(_each_once)]


class Tracking:
    """The trackers of a run, started."""

    def __init__(self, settings: Sequence[Any], run: TrackedRun) -> None:
        """Start them; a `RunError` where one does not start."""
        self._started: dict[str, Tracker] = {}
        for one in settings:
            try:
                self._started[one.kind] = one.start(run)
            except Exception as error:
                self.close()
                raise RunError(f"trackers: cannot open {one.kind}: {one_line(error)[:300]}") from error

    def catch_up(self, metrics: Iterable[Mapping[str, Any]], timings: Iterable[Mapping[str, Any]]) -> None:
        """Tell each tracker what it lacks of the steps that a run goes on from."""
        times = {record["step"]: record for record in timings}
        for record in metrics:
            self.step(record["step"], record, times.get(record["step"], {}))

    def step(self, step: int, metrics: Mapping[str, Any], timings: Mapping[str, Any]) -> None:
        """Hand a step's numbers on. A tracker that fails is warned of and left out from then on."""
        numbers = {f"{group_of(name)}/{name}": value for name, value in metrics.items() if isinstance(value, float)}
        times = {"seconds": timings.get("seconds")} | timings.get("stage_seconds", {})
        numbers |= {f"time/{name}": seconds for name, seconds in times.items() if seconds is not None}
        for kind, tracker in list(self._started.items()):
            try:
                if step >= tracker.first:
                    tracker.log(step, numbers)
            except Exception as error:  # noqa: BLE001 - of any library; the run's own files have every number
                del self._started[kind]
                what = f"{kind} failed at step {step} and is left out from here on: {one_line(error)[:300]}"
                warnings.warn(what, stacklevel=2)

    def close(self) -> None:
        """Close all of them; one that fails at it is warned of."""
        while self._started:
            kind, tracker = self._started.popitem()
            try:
                tracker.close()
            except Exception as error:  # noqa: BLE001 - as above
                warnings.warn(f"{kind} could not be closed: {one_line(error)[:300]}", stacklevel=2)


def group_of(name: str) -> str:
    """The group that a metric is shown in: proxy and gold stand in one."""
    return next((group for group, beginnings in GROUPS.items() if name.startswith(beginnings)), "policy")
