"""A reward fit on Ray Train: data-parallel workers, restarted where they died, resumed where they stopped."""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.plan import Node, explain, fit_bundles
from cluster.session import connect
from cluster.spec import ClusterSpec, load_spec
from framework.artifacts import write_text
from framework.config import Config
from framework.errors import GoldilocksError, PlacementError, RunError, UserError
from framework.training.data_parallel import Shard
from framework.training.fit_checkpoint import PROGRESS_FILE
from framework.training.policy_fit import Progress
from jobs.reward_job import RewardJob, Runner, fit_here, fit_shard

RESTARTS = 2
"""Times that a group with a dead worker is built again; it goes on from the last save."""
FAILURE_FILE = "failure.json"
POLL_SECONDS = 0.5


def on_ray_train(spec: ClusterSpec, address: str | None = None) -> Runner:
    """A runner that fits with `spec.fit.replicas` workers of a Ray cluster.

    The workers write the model and their saves themselves, so `--out` must be on storage that they share.
    """

    def run(job: RewardJob, progress: Progress | None) -> None:
        # Ray Train asks its workers how they are every two seconds, and a report waits for that.
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        with connect(address, spec, namespace="fit-reward") as session:
            _assert_fits(spec, session.nodes())
            with _watching(job.unfinished / PROGRESS_FILE, progress):
                _fit(job, spec)

    return run


def fitting_beside(cfg: Config, address: str | None) -> Runner:
    """Who fits for a verb that found no reward model: this process, unless the layout has several workers for it.

    One worker on Ray Train gives the same numbers as this process, and ten seconds later.
    """
    spec = load_spec(cfg.cluster)
    several = cfg.backend == "ray" and spec.fit.replicas > 1
    return on_ray_train(spec, address) if several else fit_here


def _fit(job: RewardJob, spec: ClusterSpec) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    fit = spec.fit
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job, "threads": fit.threads},
        torch_config=TorchConfig(backend="nccl" if fit.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=fit.replicas,
            use_gpu=fit.gpus > 0,
            resources_per_worker={"CPU": fit.cpus} | ({"GPU": fit.gpus} if fit.gpus else {}),
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
    failure = job.unfinished / FAILURE_FILE
    failure.unlink(missing_ok=True)
    try:
        trainer.fit()
    except Exception as error:
        raise _told(failure) or _root_cause(error) from error
    told = _told(failure)
    if told:
        raise told


def _work(config: dict[str, Any]) -> None:
    """What each worker does."""
    import ray.train
    import torch
    from ray.train.torch import get_device

    torch.set_num_threads(config["threads"])
    where = get_device()
    if where.type == "cuda":
        # Ray Train shows every worker all devices of its node; "cuda" must mean this worker's own.
        torch.cuda.set_device(where)
    place, job = ray.train.get_context(), config["job"]
    failure = job.unfinished / FAILURE_FILE
    if failure.is_file():
        return  # begun again by Ray Train, and would come to the same end
    try:
        fit_shard(job, Shard(place.get_world_rank(), place.get_world_size()), None)
    except GoldilocksError as error:
        failure.parent.mkdir(parents=True, exist_ok=True)
        write_text(failure, json.dumps([type(error).__name__, str(error)]))
        if place.get_world_size() > 1:
            raise  # the other workers may be waiting for this one: let Ray Train end them


def _told(failure: Path) -> GoldilocksError | None:
    """What a worker had to say that no restart would mend."""
    if not failure.is_file():
        return None
    kind, message = json.loads(failure.read_text())
    return {"UserError": UserError, "RunError": RunError}.get(kind, RunError)(message)


def _root_cause(error: Exception) -> RunError:
    """One line with what stopped a worker for good."""
    failures = list(getattr(error, "worker_failures", {}).values()) or [error]
    lines = str(failures[0]).strip().splitlines() or [type(failures[0]).__name__]
    return RunError(f"fit-reward: a worker failed {RESTARTS + 1} times, the last time with: {lines[-1]}")


def _assert_fits(spec: ClusterSpec, nodes: Sequence[Node]) -> None:
    """Refuse a fit that the cluster can never place: Ray Train would wait for ever."""
    plan = explain(fit_bundles(spec), nodes, spec.strategy)
    if plan.problem:
        raise PlacementError(f"fit-reward with {spec.fit.replicas} workers: {plan.problem}")


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
                step, total, loss = json.loads(path.read_text())
            except (OSError, ValueError):
                continue  # not there yet, or half written: the next look will see it
            progress(step, total, {"loss": loss})

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
