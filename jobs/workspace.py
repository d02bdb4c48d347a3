"""Where the stages of an experiment put their folders."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """A folder of stages. Each is named by what made it, so variants that agree on a stage share it."""

    root: Path

    def stage(self, kind: str, fingerprint: str) -> Path:
        """The folder of one stage, for example `policy-1f2e3d4c`."""
        return self.root / f"{kind}-{fingerprint[:8]}"

    def train(self, name: str) -> Path:
        """The run folder of a variant."""
        return self.root / name / "train"
