"""One tiny experiment for every test of this folder: its stages are made once, its runs take a second."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from framework.artifacts import Artifact
from framework.config import Config, parse_config
from jobs.stages import pairs_stage, policy_stage, reward_stage
from jobs.workspace import Workspace

TINY = {
    "backend": "inline",
    "world": {"corpus_size": 400},
    "policy": {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 64},
    "sft": {"steps": 40, "batch": 32},
    "label": {"pairs": 96, "batch": 32},
    "fit_reward": {"heads": 3, "epochs": 1, "batch": 16},
    "aggregation": {"kind": "worst_case"},
    "advantage": {"kind": "gae"},
    "update": {"epochs": 2, "minibatches": 2},
    "kl": {"kind": "adaptive"},
    "steps": 6,
    "prompts_per_step": 8,
    "samples_per_prompt": 2,
    "max_new_tokens": 12,
    "scorer_rows": 4,
    "gold_every": 2,
    "exact_kl_every": 3,
    "exact_kl_rows": 4,
    "save_every": 2,
    "keep_checkpoints": 10,
}


@dataclass(frozen=True)
class Tiny:
    """A validated tiny experiment and what its runs start from."""

    cfg: Config
    policy: Artifact
    reward: Artifact

    def but(self, **changes: object) -> Config:
        """The same experiment with some root keys changed."""
        return parse_config(self.cfg.model_dump(mode="json") | changes)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    cfg = parse_config(TINY)
    workspace = Workspace(tmp_path_factory.mktemp("tiny"))
    policy = policy_stage(cfg, workspace)
    pairs = pairs_stage(cfg, workspace, policy)
    return Tiny(cfg, policy, reward_stage(cfg, workspace, policy, pairs))


