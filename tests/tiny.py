"""One tiny experiment for many tests: its stages are made once, its runs take a second."""

from dataclasses import dataclass
from pathlib import Path

from framework.artifacts import Artifact
from framework.config import Config, parse_config
from jobs.labelling import pairs_stage
from jobs.stages import policy_stage, reward_stage
from jobs.workspace import Workspace

TINY = {
    "backend": "inline",
    "world": {"corpus_size": 400},
    "policy": {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 64},
    "sft": {"steps": 40, "batch": 32},
    "label": {"pairs": 96, "batch": 32},
    "fit_reward": {"ensemble": {"kind": "shared_encoder", "heads": 3}, "epochs": 1, "batch": 16},
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


def make_tiny(folder: Path) -> Tiny:
    """Run the stages before the online loop."""
    cfg = parse_config(TINY)
    workspace = Workspace(folder)
    policy = policy_stage(cfg, workspace)
    pairs = pairs_stage(cfg, workspace, policy)
    return Tiny(cfg, policy, reward_stage(cfg, workspace, policy, pairs))


def contents(run: Path) -> dict[str, bytes]:
    """What of a run must not depend on how it was run: metrics, rollouts and the last checkpoint, as bytes by relative path."""
    last = max((run / "checkpoints").glob("step_*"), key=lambda p: int(p.name.removeprefix("step_")))
    files = [run / "metrics.jsonl", *sorted(run.glob("rollouts/*.parquet"))]
    files += sorted(p for p in last.iterdir() if p.is_file())
    return {str(p.relative_to(run)): p.read_bytes() for p in files}
