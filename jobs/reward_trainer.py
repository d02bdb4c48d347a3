"""A reward fit on Ray Train: data-parallel workers, restarted where they died, resumed where they stopped."""

import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.plan import Node, explain, fit_bundles
from cluster.session import connect
from cluster.spec import ClusterSpec
from framework.errors import GoldilocksError, PlacementError, RunError
from framework.training.data_parallel import Shard
from framework.training.fit_checkpoint import PROGRESS_FILE
from framework.training.policy_fit import Progress
from jobs.reward_job import RewardJob, Runner, fit_shard

RESTARTS = 2
"""Times that a group with a dead worker is built again; it goes on from the last save."""
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


def _fit(job: RewardJob, spec: ClusterSpec) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    fit = spec.fit
    # Our own saves are the state of a fit, whatever runs it; what Ray Train keeps for itself is scratch.
    with tempfile.TemporaryDirectory() as scratch:
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
                name=job.out.name.strip("."),
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=RESTARTS),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            raise _translated(error) from error


def _work(config: dict[str, Any]) -> None:
    """What each worker does."""
    import ray.train
    import torch

    torch.set_num_threads(config["threads"])
    place = ray.train.get_context()
    fit_shard(config["job"], Shard(place.get_world_rank(), place.get_world_size()), None)
    ray.train.report({"finished": True})


def _translated(error: Exception) -> GoldilocksError:
    """What a worker raised, where it is ours; else one line with the root cause."""
    failures = list(getattr(error, "worker_failures", {}).values()) or [error]
    for failure in failures:
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, GoldilocksError):
                return cause
            found = getattr(cause, "cause", None)
            cause = found if isinstance(found, BaseException) else cause.__cause__
    text = str(failures[0]).strip().splitlines()
    return RunError(f"fit-reward: a worker failed: {text[-1] if text else type(failures[0]).__name__}")


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
