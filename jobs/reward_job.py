"""A reward fit as a job: all it needs by value or by path, so that any process can do it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from framework.data.preferences import read_pairs
from framework.precision import Precision
from framework.training.data_parallel import Shard
from framework.training.fit_checkpoint import FitCheckpoints
from framework.training.policy_fit import Progress
from framework.training.reward_fit import FitSetting, fit_reward
from framework.training.reward_settings import FitReward
from jobs.artifact_stage import device

QUALITY_FILE = "quality.json"


@dataclass(frozen=True)
class RewardJob:
    """One fit, from a file of pairs to a folder with a reward model. Paths are absolute."""

    settings: FitReward
    source: str
    """Folder or hub id of the encoder."""
    pairs: Path
    seed: int
    precision: Precision
    rows: int
    out: Path
    """An empty folder for the model and its `quality.json`."""
    unfinished: Path
    """Where a stopped fit left its parts, and where this one does."""


Runner = Callable[[RewardJob, Progress | None], None]
"""Does a job, in this process or elsewhere; afterwards `job.out` is complete."""


def fit_here(job: RewardJob, progress: Progress | None = None) -> None:
    """Do the job in this process."""
    fit_shard(job, Shard(), progress)


def fit_shard(job: RewardJob, shard: Shard, progress: Progress | None) -> None:
    """Do this process's share of the job; the first process writes."""
    setting = FitSetting(
        source=job.source,
        seed=job.seed,
        device=device(),
        precision=job.precision,
        rows=job.rows,
        shard=shard,
        checkpoints=FitCheckpoints(job.unfinished, writes=shard.leads),
        progress=progress if shard.leads else None,
    )
    model, figures, quality = fit_reward(job.settings, read_pairs(job.pairs), setting)
    if shard.leads:
        model.to("cpu").save(job.out)
        (job.out / QUALITY_FILE).write_text(json.dumps({"figures": figures, "quality": quality}, indent=2))


def forget_parts(job: RewardJob) -> None:
    """Delete what a stopped fit would have needed."""
    shutil.rmtree(job.unfinished, ignore_errors=True)
