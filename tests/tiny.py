"""One tiny experiment for many tests: its stages are made once, its runs take a second."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framework.artifacts import Artifact
from framework.config import Config, parse_config
from jobs.chain import Chain
from jobs.run_folder import RunContext, RunInputs, RunResult, make_run

TINY: dict[str, Any] = {
    "backend": "inline",
    "world": {"corpus_size": 400},
    "policy": {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 64},
    "sft": {"steps": 40, "batch": 32},
    "label": {"pairs": 96, "batch": 32},
    "fit_reward": {"ensemble": {"kind": "shared_encoder", "heads": 3}, "epochs": 1, "batch": 16},
    "aggregation": {"kind": "worst_case"},
    "max_new_tokens": 12,
    "scorer_rows": 4,
    "train": {
        "steps": 6,
        "prompts_per_step": 8,
        "samples_per_prompt": 2,
        "advantage": {"kind": "gae"},
        "update": {"epochs": 2, "minibatches": 2},
        "kl": {"kind": "adaptive"},
        "gold_every": 2,
        "exact_kl_every": 3,
        "exact_kl_rows": 4,
        "save_every": 2,
        "keep_checkpoints": 10,
    },
}


def merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with the changes in it, section by section; a section of another kind begins anew."""
    out = dict(tree)
    for name, value in changes.items():
        before = out.get(name)
        is_section = isinstance(before, Mapping) and isinstance(value, Mapping)
        same_kind = is_section and value.get("kind", before.get("kind")) == before.get("kind")
        out[name] = merged(before, value) if same_kind else value
    return out


@dataclass(frozen=True)
class Tiny:
    """A validated tiny experiment and what its runs start from."""

    cfg: Config
    parents: dict[str, Artifact]

    def but(self, **changes: Any) -> Config:
        """The same experiment with some keys changed; `train={"steps": 1}` keeps the rest of the section."""
        return parse_config(merged(self.cfg.model_dump(mode="json"), changes))

    def run(self, folder: Path, context: RunContext | None = None, **changes: Any) -> RunResult:
        """A run of it with some keys changed."""
        return make_run(RunInputs(self.but(**changes), self.parents), folder, context or RunContext())


def make_tiny(folder: Path) -> Tiny:
    """Run the stages before the online loop."""
    inputs = Chain(parse_config(TINY), folder).inputs
    return Tiny(inputs.cfg, dict(inputs.parents))


def contents(run: Path) -> dict[str, bytes]:
    """What of a run must not depend on how it was run: metrics, rollouts and the last checkpoint, as bytes by relative path."""
    last = max((run / "checkpoints").glob("step_*"), key=lambda p: int(p.name.removeprefix("step_")))
    files = [run / "metrics.jsonl", *sorted(run.glob("rollouts/*.parquet"))]
    files += sorted(p for p in last.iterdir() if p.is_file())
    return {str(p.relative_to(run)): p.read_bytes() for p in files}
