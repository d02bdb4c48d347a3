"""Fits on Ray Train: the numbers of this process, a worker's death, and what a worker has to say."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cluster.spec import ClusterSpec, RoleSpec
from framework.config import parse_config
from framework.errors import PlacementError, RunError
from framework.training.fit import PROGRESS_FILE
from framework.training.policy_fit import FitPolicy
from jobs.fit_job import PolicyJob, RewardJob, fit_here
from jobs.fit_on_ray import on_ray_train
from jobs.stages import PAIRS_FILE, pairs_stage, policy_stage
from tests.tiny import TINY

pytestmark = pytest.mark.ray
MODEL = ("model.safetensors", "heads.safetensors", "calibration.safetensors")


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """The folder of the start policy and the file of the pairs."""
    cfg, workspace = parse_config(TINY), tmp_path_factory.mktemp("stages")
    policy = policy_stage(cfg, workspace)
    return policy.path, pairs_stage(cfg, workspace, policy).path / PAIRS_FILE


def _job(stages, out: Path, kind: type[RewardJob] = RewardJob, **changes) -> RewardJob:
    out.mkdir()
    settings = parse_config({**TINY, "fit_reward": {**TINY["fit_reward"], "save_every": 20, **changes}}).fit_reward
    unfinished = out.with_name(f".{out.name}.unfinished")
    return kind(
        settings=settings,
        source=str(stages[0]),
        pairs=stages[1],
        rows=4,
        seed=0,
        precision="float32",
        out=out,
        unfinished=unfinished,
    )


def _policy_job(out: Path) -> PolicyJob:
    """Supervised fitting of a fresh tiny policy."""
    cfg = parse_config(TINY)
    out.mkdir()
    cfg.policy.write(out, cfg.world, cfg.seed)
    return PolicyJob(
        settings=FitPolicy(steps=12, batch=8, optimizer={"lr": 1e-3, "eps": 1e-3}),
        corpus=tuple(cfg.world.corpus(0)[:60]),
        seed=0,
        precision="float32",
        out=out,
        unfinished=out.with_name(f".{out.name}.unfinished"),
    )


class Broken(RewardJob):
    """A fit with a mistake in its code."""

    def fit(self, setting):
        raise KeyError("no such column")


def _spec(workers: int, gpus: float = 0) -> ClusterSpec:
    return ClusterSpec(name="test", fit=RoleSpec(replicas=workers, cpus=1, gpus=gpus))


def _tensors(job: RewardJob) -> dict[str, torch.Tensor]:
    return {f"{name}:{key}": value for name in MODEL for key, value in load_file(job.out / name).items()}


def test_two_workers_fit_what_one_process_fits(ray_session, stages, tmp_path):
    # Sums in another order round differently, and Adam divides by gradients: a larger eps keeps that small.
    calm = {"lr": 1e-3, "eps": 1e-3}
    alone, together = (_job(stages, tmp_path / name, optimizer=calm) for name in ("alone", "together"))
    fit_here(alone)
    seen: list[tuple[int, int]] = []
    on_ray_train(_spec(2))(together, lambda step, steps, figures: seen.append((step, steps)))
    torch.testing.assert_close(_tensors(together), _tensors(alone), rtol=1e-4, atol=1e-5)
    assert all(steps == 5 for _, steps in seen)  # 86 training pairs make 5 batches of 16


@pytest.mark.slow
@pytest.mark.parametrize(
    "gpus",
    [
        pytest.param(0, marks=pytest.mark.slow),
        pytest.param(1, marks=pytest.mark.skipif(torch.cuda.is_available(), reason="the GPUs are not only logical")),
    ],
)
def test_two_workers_fit_the_policy_that_one_process_fits(ray_session, tmp_path, gpus):
    """Also where the GPUs that they claim are logical ones: backend and device are those that are there."""
    alone, together = (_policy_job(tmp_path / name) for name in ("alone", "together"))
    figures = on_ray_train(_spec(2, gpus))(together, None)
    assert figures["loss"] == pytest.approx(fit_here(alone)["loss"], rel=1e-5)
    ours, theirs = (load_file(job.out / "model.safetensors") for job in (together, alone))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_killed_worker_costs_time_and_no_number(ray_session, stages, tmp_path):
    alone, killed = (_job(stages, tmp_path / name, epochs=60) for name in ("alone", "killed"))
    fit_here(alone)
    deaths: list[int] = []
    thread = threading.Thread(target=_kill_one, args=(killed.unfinished / PROGRESS_FILE, deaths))
    thread.start()
    on_ray_train(_spec(1))(killed, None)
    thread.join()
    assert len(deaths) == 1
    ours, theirs = _tensors(killed), _tensors(alone)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def _kill_one(progress: Path, deaths: list[int]) -> None:
    """Kill the process that fits, once it has come past its first save."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            step, _, _ = json.loads(progress.read_text())
        except (OSError, ValueError):
            step = 0
        found = _train_workers()
        if step > 40 and found:
            os.kill(found[0], signal.SIGKILL)
            deaths.append(found[0])
            return
        time.sleep(0.01)


def _train_workers() -> list[int]:
    """Processes that Ray Train fits in, of this user; Ray names a worker's process after what it does."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            title = (place / "cmdline").read_text()
        except OSError:
            continue
        if title.startswith("ray::") and "TrainWorker" in title:
            found.append(int(place.name))
    return found


@pytest.mark.slow
def test_what_no_restart_mends_is_told_at_once(ray_session, stages, tmp_path):
    job = _job(stages, tmp_path / "hot", optimizer={"lr": 1e30})
    with pytest.raises(RunError, match=r"not finite|loss is .*lower fit_reward\.optimizer\.lr"):
        on_ray_train(_spec(1))(job, None)
    assert not list(job.out.iterdir())


@pytest.mark.slow
def test_a_mistake_in_the_code_is_tried_again_and_then_told_in_one_line(ray_session, stages, tmp_path):
    job = _job(stages, tmp_path / "broken", Broken)
    with pytest.raises(RunError, match=r"^fit-reward: a worker failed 3 times, .*KeyError: 'no such column'$"):
        on_ray_train(_spec(1))(job, None)


def test_more_workers_than_the_cluster_holds_are_refused(ray_session, stages, tmp_path):
    job = _job(stages, tmp_path / "many")
    with pytest.raises(PlacementError, match=r"fit-reward with 99 workers: .*99 CPUs.* 8 CPUs"):
        on_ray_train(_spec(99))(job, None)
