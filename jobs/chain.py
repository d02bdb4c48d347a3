"""The chain of stages: policy, pairs, reward, and the pool of best-of-n. Each is made once, when it is first asked for."""

import json
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from framework.analysis.best_of_n import POOL_LINK
from framework.artifacts import Artifact, update_text
from framework.config import Config
from framework.training import Progress
from jobs.best_of_n import SCORES_FILE, pool_stage, scores_stage
from jobs.fit_job import Runner, fit_here
from jobs.run_folder import RunInputs
from jobs.stages import given_reward_stage, pairs_stage, policy_stage, reward_stage

ShowStage = Callable[[str], Progress | None]
"""Told a stage's title, gives what its progress is reported to."""


class Chain:
    """The stages of one configuration in one workspace; what is there already is not made again."""

    def __init__(
        self, cfg: Config, workspace: Path, show: ShowStage = lambda title: None, fit: Runner = fit_here
    ) -> None:
        """`fit` does the fits, in this process or elsewhere."""
        self.cfg, self.workspace, self.show, self.fit = cfg, workspace, show, fit

    @cached_property
    def policy(self) -> Artifact:
        """The start policy."""
        return policy_stage(self.cfg, self.workspace, self.show("fit-policy"), self.fit)

    @property
    def reference(self) -> Artifact:
        """The policy that KL is measured from: the start policy."""
        return self.policy

    @cached_property
    def pairs(self) -> Artifact:
        """Labelled pairs: the user's own, or sampled from the start policy."""
        policy = None if self.cfg.fit_reward.pairs else self.policy
        return pairs_stage(self.cfg, self.workspace, policy, self.show("label"))

    @cached_property
    def reward(self) -> Artifact:
        """The reward model. A fit needs pairs, and the policy unless pairs and encoder are the user's own."""
        if not self.cfg.needs_pairs:
            return given_reward_stage(self.cfg, self.workspace, self.policy, self.show("reward"))
        own = self.cfg.fit_reward.pairs is not None and self.cfg.fit_reward.encoder is not None
        policy, pairs = None if own else self.policy, self.pairs
        return reward_stage(self.cfg, self.workspace, policy, pairs, self.show("fit-reward"), self.fit)

    @cached_property
    def pool(self) -> Artifact:
        """Responses of the start policy to choose the best from."""
        return pool_stage(self.cfg, self.workspace, self.policy, self.show("best-of-n pool"))

    @cached_property
    def scores(self) -> Artifact:
        """The pool, scored by every head of the reward model."""
        pool, reward = self.pool, self.reward
        return scores_stage(self.cfg, self.workspace, pool, reward, self.show("best-of-n scores"))

    @property
    def inputs(self) -> RunInputs:
        """What a run of this configuration starts from."""
        return RunInputs(self.cfg, {name: getattr(self, name) for name in self.cfg.train.starts_from})

    def score_pool(self, run: Path) -> None:
        """Where the configuration has a section for it: score the pool, and note beside the run folder where that is."""
        if self.cfg.best_of_n is None:
            return
        run.parent.mkdir(parents=True, exist_ok=True)  # the run itself may still be waiting its turn
        link, path = run.parent / POOL_LINK, os.path.relpath(self.scores.path / SCORES_FILE, run.parent)
        record = {"scores": path, "sha256": self.scores.sha256, "ns": self.cfg.best_of_n.counts}
        update_text(link, json.dumps(record, indent=2) + "\n")
