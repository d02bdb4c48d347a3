"""What one run of a study or of a sweep starts from, made in this process."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from framework.analysis.comparison import POOL_LINK
from framework.artifacts import Artifact, write_text
from framework.config import Config
from framework.training.policy_fit import Progress
from jobs.best_of_n import SCORES_FILE, pool_stage, scores_stage
from jobs.labelling import pairs_stage
from jobs.reward_trainer import fitting_beside
from jobs.stages import policy_stage, reward_stage
from jobs.workspace import Workspace

ShowStage = Callable[[str], Progress | None]
"""Told a stage's title, gives what its progress is reported to."""


@dataclass(frozen=True)
class RunInputs:
    """A run that may begin."""

    cfg: Config
    name: str
    run: Path
    """Its folder, `seed_N/NAME/train`; runs of a seed share their stages beside it."""
    policy: Artifact
    reward: Artifact


def make_inputs(cfg: Config, name: str, run: Path, show: ShowStage, address: str | None) -> RunInputs:
    """The start policy and the reward model of a run, made where no other run of its seed has made them."""
    workspace = Workspace(run.parent.parent)
    title = f"seed {cfg.seed}"
    policy = policy_stage(cfg, workspace, show(f"{title}: fit-policy"))
    pairs = pairs_stage(cfg, workspace, policy, show(f"{title}: label"))
    fitted = show(f"{title}: fit-reward {name}")
    reward = reward_stage(cfg, workspace, policy, pairs, fitted, fitting_beside(cfg, address))
    return RunInputs(cfg, name, run, policy, reward)


def score_pool(inputs: RunInputs, show: ShowStage) -> None:
    """Sample the best-of-n pool of a run's start policy, score it by the run's reward, and note where that is."""
    cfg, run = inputs.cfg, inputs.run
    if cfg.best_of_n is None:
        return
    workspace = Workspace(run.parent.parent)
    title = f"seed {cfg.seed}: best-of-n"
    pool = pool_stage(cfg, workspace, inputs.policy, show(f"{title} pool"))
    scores = scores_stage(cfg, workspace, pool, inputs.reward, show(f"{title} scores {inputs.name}"))
    run.parent.mkdir(parents=True, exist_ok=True)  # the run itself may still be waiting its turn
    link, path = run.parent / POOL_LINK, os.path.relpath(scores.path / SCORES_FILE, run.parent)
    record = {"scores": path, "sha256": scores.sha256, "ns": cfg.best_of_n.counts}
    text = json.dumps(record, indent=2) + "\n"
    if not link.is_file() or link.read_text() != text:
        write_text(link, text)
