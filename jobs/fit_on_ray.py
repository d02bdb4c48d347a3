"""A fit on Ray Train: data-parallel workers, restarted where they died, resumed where they stopped."""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.group import failure_in_ray
from actors.spawn import failure_of
from cluster.plan import explain, fit_bundles
from cluster.session import connect, live_nodes
from cluster.spec import ClusterSpec, RoleSpec
from framework.artifacts import write_text
from framework.config import Config
from framework.errors import GoldilocksError, PlacementError, RunError, UserError
from framework.training import Progress
from framework.training.data_parallel import Shard
from framework.training.fit import PROGRESS_FILE
from jobs.artifact_stage import device
from jobs.fit_job import FIGURES_FILE, FitJob, Runner, fit_here
from jobs.layouts import load_layout

RESTARTS = 2
"""Times that a group with a dead worker is built again; it goes on from the last save."""
FAILURE_FILE = "failure.json"
POLL_SECONDS = 0.5


def on_ray_train(spec: ClusterSpec, address: str | None = None) -> Runner:
    """A runner that fits with `spec.fit.replicas` workers of a Ray cluster.

    The workers write the model and their saves themselves, so `--out` must be on storage that they share.
    """

    def run(job: FitJob, progress: Progress | None) -> dict[str, float]:
        # Ray Train asks its workers how they are every two seconds, and a report waits for that.
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        with connect(address, spec, namespace=job.title):
            plan = explain(fit_bundles(spec), live_nodes(), spec.strategy)
            if plan.problem:  # Ray Train would wait for ever
                raise PlacementError(f"{job.title} with {spec.fit.replicas} workers: {plan.problem}")
            with _watching(job.unfinished / PROGRESS_FILE, progress):
                _fit(job, spec)
        figures: dict[str, float] = json.loads((job.unfinished / FIGURES_FILE).read_text(encoding="utf-8"))
        return figures

    return run


def fitting_beside(cfg: Config, address: str | None) -> Runner:
    """Who fits for a verb that found no model: this process, unless the layout has several workers for it.

    One worker on Ray Train gives the same numbers as this process, and ten seconds later.
    """
    spec = load_layout(cfg.cluster)
    return on_ray_train(spec, address) if cfg.backend == "ray" and spec.fit.replicas > 1 else fit_here


def _fit(job: FitJob, spec: ClusterSpec) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.ERROR)

    class Trainer(TorchTrainer):
        def _register_sigint_handler(self, controller: Any) -> None:
            """Ours stays: that of Ray Train ends the process as if all were well."""

    fit = spec.fit
    claims = {"CPU": fit.cpus} | ({"GPU": fit.gpus} if fit.gpus else {})
    trainer = Trainer(
        _work,
        train_loop_config={"job": job, "threads": fit.threads},
        torch_config=TorchConfig(backend=_backend(fit)),
        scaling_config=ScalingConfig(
            num_workers=fit.replicas,
            use_gpu=fit.gpus > 0,
            resources_per_worker=claims,
            placement_strategy=spec.strategy,
        ),
        run_config=RunConfig(
            # Our own saves are the state of a fit, whatever runs it. What Ray Train notes must lie where all
            # nodes see it, and under a new name: of an earlier attempt it would try to go on by itself.
            name=f"attempt-{time.time_ns()}",
            storage_path=str(job.unfinished / "ray_train"),
            failure_config=FailureConfig(max_failures=RESTARTS),
        ),
    )
    (job.unfinished / FAILURE_FILE).unlink(missing_ok=True)
    try:
        trainer.fit()
    except Exception as error:
        raise _failure(job, error) from error
    failure, is_final = _read_failure(job)
    if failure and is_final:
        raise failure


def _backend(fit: RoleSpec) -> str:
    """Of torch.distributed: NCCL where a worker sees the GPU that it claims, gloo where that is a logical one."""
    import ray

    look = ray.remote(device).options(num_cpus=fit.cpus, num_gpus=fit.gpus, name="fit.device")
    return "nccl" if fit.gpus and ray.get(look.remote()) == "cuda" else "gloo"


def _work(config: dict[str, Any]) -> None:
    """What each worker does."""
    import ray.train
    import torch
    from ray.train.torch import get_device

    torch.set_num_threads(config["threads"])
    if device() == "cuda":
        # Ray Train shows every worker all devices of its node; "cuda" must mean this worker's own.
        torch.cuda.set_device(get_device())
    place, job = ray.train.get_context(), config["job"]
    if _read_failure(job)[1]:
        return  # begun again by Ray Train, and would come to the same end
    rank, size = place.get_world_rank(), place.get_world_size()
    try:
        fit_here(job, shard=Shard(rank, size))
    except Exception as error:
        failure = failure_of(error, job.title)
        is_final = failure is error
        if is_final or not _read_failure(job)[1]:  # what one worker means is not to be hidden by another's hang-up
            job.unfinished.mkdir(parents=True, exist_ok=True)
            write_text(job.unfinished / FAILURE_FILE, json.dumps([type(failure).__name__, str(failure), is_final]))
        if not is_final:
            raise failure from error  # to be begun again
        if size > 1:
            raise  # the other workers may be waiting for this one: let Ray Train end them


def _read_failure(job: FitJob) -> tuple[GoldilocksError | None, bool]:
    """What a worker had to say when it failed, and whether no restart would mend it."""
    path = job.unfinished / FAILURE_FILE
    if not path.is_file():
        return None, False
    kind, message, is_final = json.loads(path.read_text(encoding="utf-8"))
    return {"UserError": UserError}.get(kind, RunError)(message), is_final


def _failure(job: FitJob, error: Exception) -> GoldilocksError:
    """What stopped a fit for good, in a line."""
    failure, is_final = _read_failure(job)
    if failure and is_final:
        return failure
    if failure is None:  # a worker that is killed leaves no word
        worker = next(iter(getattr(error, "worker_failures", {}).values()), error)
        failure = failure_in_ray(worker, job.title, {}, waited_seconds=0)
    return RunError(f"{job.title}: a worker failed {RESTARTS + 1} times, the last time with: {failure}")


@contextmanager
def _watching(path: Path, progress: Progress | None) -> Iterator[None]:
    """Moves the progress of a fit in other processes, from the word that it leaves in a file."""
    if progress is None:
        yield
        return
    done = threading.Event()

    def look() -> None:
        while not done.wait(POLL_SECONDS):
            try:
                step, total, loss = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue  # not there yet, or half written: the next look will see it
            try:
                progress(step, total, {"loss": loss})
            except KeyboardInterrupt:  # a stop is asked; the fit is waited for elsewhere
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
