"""The trackers that there are. The libraries of all but the first are extras."""

import logging
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import ClassVar, Literal

from framework.errors import UserError
from framework.trackers.tracker import TrackedRun, Tracker, TrackerSettings


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
