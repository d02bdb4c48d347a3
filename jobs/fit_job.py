"""A fit as a job: all it needs by value or by path, so that any process can do it, alone or with others."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from framework.data.pair_tables import read_pairs
from framework.models.causal import CausalPolicy
from framework.models.tokenizer import load_tokenizer
from framework.precision import Precision
from framework.training import Progress
from framework.training.data_parallel import Shard
from framework.training.fit import FitCheckpoints, FitSetting
from framework.training.policy_fit import FitPolicy, fit_policy
from framework.training.reward_fit import fit_reward
from framework.training.reward_settings import FitReward
from jobs.artifact_stage import device

QUALITY_FILE, FIGURES_FILE = "quality.json", "figures.json"


@dataclass(frozen=True, kw_only=True)
class FitJob:
    """Base of the jobs. Paths are absolute."""

    title: ClassVar[str]
    """The verb that it belongs to, for messages."""
    seed: int
    precision: Precision
    out: Path
    """The folder that the fitted model is written to."""
    unfinished: Path
    """Where a stopped fit left its parts, and where this one does."""

    def fit(self, setting: FitSetting) -> dict[str, float]:
        """Do this process's share, and return what was measured; the first process writes the model."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class PolicyJob(FitJob):
    """Supervised fitting of the policy that lies in `out`, which the fitted one replaces."""

    title: ClassVar[str] = "fit-policy"
    settings: FitPolicy
    corpus: tuple[tuple[str, str], ...]
    instruction: str | None = None

    def fit(self, setting: FitSetting) -> dict[str, float]:
        policy, tokenizer = CausalPolicy.load(self.out), load_tokenizer(self.out)
        figures = fit_policy(policy, tokenizer, self.corpus, self.settings, setting, instruction=self.instruction)
        if setting.shard.leads:
            policy.cpu().save(self.out)
        return figures


@dataclass(frozen=True, kw_only=True)
class RewardJob(FitJob):
    """The fit of a reward model to a file of pairs; its `quality.json` is written beside it."""

    title: ClassVar[str] = "fit-reward"
    settings: FitReward
    source: str
    """Folder or hub id of the encoder."""
    pairs: Path
    rows: int

    def fit(self, setting: FitSetting) -> dict[str, float]:
        pairs = read_pairs(self.pairs)
        model, figures, quality = fit_reward(self.settings, self.source, pairs, setting, self.rows)
        if setting.shard.leads:
            model.to("cpu").save(self.out)
            record = {"figures": figures, "quality": quality}
            (self.out / QUALITY_FILE).write_text(json.dumps(record, indent=2), encoding="utf-8")
        return figures


Runner = Callable[[FitJob, Progress | None], dict[str, float]]
"""Does a job, in this process or elsewhere, and returns its figures; afterwards the model is in `job.out`."""


def fit_here(job: FitJob, progress: Progress | None = None, shard: Shard | None = None) -> dict[str, float]:
    """Do the job in this process, or its share of it; the first process leaves the figures in `job.unfinished` too."""
    shard = shard or Shard()
    saves = FitCheckpoints(job.unfinished, writes=shard.leads)
    figures = job.fit(FitSetting(job.seed, device(), job.precision, shard, saves, progress))
    if shard.leads:
        job.unfinished.mkdir(parents=True, exist_ok=True)
        (job.unfinished / FIGURES_FILE).write_text(json.dumps(figures), encoding="utf-8")
    return figures
