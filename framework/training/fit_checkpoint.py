"""How far a fit of several parts has come, so that a stopped one goes on with the same numbers."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from framework.artifacts import writing
from framework.training.engine import Engine

STATE_FILE, WEIGHTS_FILE, PROGRESS_FILE = "state.json", "weights.safetensors", "progress.json"


@dataclass
class FitState:
    """Of one part: steps taken, and the loss at each."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    finished: bool = False


class FitCheckpoints:
    """One folder per part, written whole or not at all. Without a folder nothing is kept."""

    def __init__(self, folder: Path | None, writes: bool = True) -> None:
        """`writes`: whether this process is the one that saves; all may load."""
        self.folder, self.writes = folder, writes

    def load(self, name: str, module: nn.Module, engine: Engine) -> FitState:
        """Where the part stands; `module` and `engine` are brought there."""
        if self.folder is None or not (self.folder / name / STATE_FILE).is_file():
            return FitState()
        place = self.folder / name
        record = json.loads((place / STATE_FILE).read_text())
        module.load_state_dict(load_file(place / WEIGHTS_FILE))
        if not record["finished"]:
            engine.load(place)
        return FitState(record["step"], record["losses"], record["finished"])

    def save(self, name: str, state: FitState, module: nn.Module, engine: Engine, finished: bool) -> None:
        """Write the part down; a finished one needs no optimiser."""
        if self.folder is None or not self.writes:
            return
        with writing(self.folder / name) as scratch:
            save_file({k: v.contiguous() for k, v in module.state_dict().items()}, scratch / WEIGHTS_FILE)
            if not finished:
                engine.save(scratch)
            record = {"step": state.step, "losses": state.losses, "finished": finished}
            (scratch / STATE_FILE).write_text(json.dumps(record))

    def show(self, done: int, total: int, loss: float) -> None:
        """Leave word of how far the whole fit is, for a reader in another process."""
        if self.folder is not None and self.writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / PROGRESS_FILE).write_text(json.dumps([done, total, loss]))
