"""MLflow: a tracking server, or a database file."""

import logging
import os
import time
from collections.abc import Mapping
from typing import ClassVar, Literal

from framework.trackers.tracker import Calls, TrackedRun, Tracker, TrackerSettings

_TAG, _EVERY_STEP = "goldilocks.id", "time/seconds"


class MlFlow(TrackerSettings):
    """MLflow, on a tracking server or in a database file."""

    kind: Literal["mlflow"] = "mlflow"
    experiment: str = "goldilocks"
    """That the runs are shown in."""
    uri: str | None = None
    """Of the tracking server or database, for example `sqlite:////shared/mlflow.db`. None: what MLFLOW_TRACKING_URI says,
    else MLflow's own default."""

    package: ClassVar[str | None] = "mlflow"

    def start(self, run: TrackedRun) -> tuple[Tracker, int]:
        """The MLflow run that carries this run's id as a tag, which goes on where there is one."""
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the default waits for minutes
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        client = MlflowClient(tracking_uri=self.uri)
        known = client.get_experiment_by_name(self.experiment)
        experiment = known.experiment_id if known else client.create_experiment(self.experiment)
        found = client.search_runs([experiment], f"tags.`{_TAG}` = '{run.id}'")
        held: list[int] = []
        if found:
            id = found[0].info.run_id
            client.update_run(id, status="RUNNING")
            held = [metric.step for metric in client.get_metric_history(id, _EVERY_STEP)]
        else:
            id = client.create_run(experiment, run_name=run.title, tags={_TAG: run.id}).info.run_id
            client.log_batch(id, params=[Param(name, str(value)[:6000]) for name, value in run.settings.items()])

        def log(step: int, numbers: Mapping[str, float]) -> None:
            now = round(time.time() * 1000)
            client.log_batch(id, metrics=[Metric(name, value, now, step) for name, value in numbers.items()])

        return Calls(log, lambda: client.set_terminated(id)), max(held, default=-1) + 1
