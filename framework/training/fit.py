"""The loop that every fit runs in: by one process or by several, exact after a stop at any step."""

import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from framework.artifacts import broken_seal, sealed, writing
from framework.errors import RunError, UserError
from framework.precision import Precision
from framework.seeding import derive
from framework.training import Progress
from framework.training.data_parallel import DataParallelEngine, Shard
from framework.training.engine import Optimizer
from framework.training.torch_engine import TorchEngine

STATE_FILE, WEIGHTS_FILE, PROGRESS_FILE = "state.json", "weights.safetensors", "progress.json"
Loss = Callable[[TorchEngine, int], Tensor]
"""The loss of the whole batch of a step, worked out through the engine on this process's share of it."""


@dataclass
class FitState:
    """Of one module: steps taken, and the loss at each."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    finished: bool = False


class FitCheckpoints:
    """How far a fit has come: one folder per module, written whole or not at all. Without a folder nothing is kept."""

    def __init__(self, folder: Path | None, writes: bool = True) -> None:
        """`writes`: whether this process is the one that saves; all may load."""
        self.folder, self.writes = folder, writes

    def load(self, name: str, module: nn.Module, engine: TorchEngine) -> FitState:
        """Where the module stands; it and its `engine` are brought there."""
        if self.folder is None or not (self.folder / name / STATE_FILE).is_file():
            return FitState()
        place = self.folder / name
        try:
            record = json.loads((place / STATE_FILE).read_text(encoding="utf-8"))
            if broken_seal(record, place) is not None:
                raise ValueError("its hash is another")
            state = FitState(**record["state"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            warnings.warn(f"{place} is damaged: {name} is fitted from its beginning", stacklevel=2)
            return FitState()
        load_model(module, place / WEIGHTS_FILE)
        if not state.finished:
            engine.load(place)
        return state

    def save(self, name: str, state: FitState, module: nn.Module, engine: TorchEngine) -> None:
        """Write the module down; a finished one needs no optimiser."""
        if self.folder is None or not self.writes:
            return
        with writing(self.folder / name) as scratch:
            save_model(module, str(scratch / WEIGHTS_FILE))
            if not state.finished:
                engine.save(scratch)
            record = sealed({"state": vars(state)}, scratch)
            (scratch / STATE_FILE).write_text(json.dumps(record), encoding="utf-8")

    def show(self, done: int, total: int, loss: float) -> None:
        """Leave word of how far the whole fit is, for a reader in another process."""
        if self.folder is not None and self.writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / PROGRESS_FILE).write_text(json.dumps([done, total, loss]), encoding="utf-8")


@dataclass(frozen=True)
class FitSetting:
    """What surrounds a fit: its random numbers, where it computes, who takes part, and where it is kept."""

    seed: int
    device: str = "cpu"
    precision: Precision = "float32"
    shard: Shard = field(default_factory=Shard)
    checkpoints: FitCheckpoints = field(default_factory=lambda: FitCheckpoints(None))
    progress: Progress | None = None


class FitLoop:
    """Fits modules one after the other, each from where a stopped fit left it."""

    def __init__(self, section: str, setting: FitSetting, total_steps: int, save_every: int) -> None:
        """`total_steps` over all modules, `save_every` of one until it is saved; messages name the `section`."""
        self.section, self.setting = section, setting
        self.total_steps, self.save_every = total_steps, save_every
        self.done_steps = 0

    def fit(
        self, module: nn.Module, name: str, steps: int, optimizer: Optimizer, loss: Loss, draws: Sequence[int | str]
    ) -> list[float]:
        """Fit `module` in place, and return the loss of each step; a `RunError` where it or a gradient is not finite.

        Args:
            name: of the module among those of the fit; its saves lie in a folder of that name.
            draws: name the random numbers of the forward passes, dropout above all.
        """
        setting, shard = self.setting, self.setting.shard
        kind = TorchEngine if shard.size == 1 else DataParallelEngine
        engine = kind(module, optimizer, steps, setting.precision)
        state = setting.checkpoints.load(name, module, engine)
        shard.wait()  # until all have read it: the first process is about to write there
        module.train()
        while state.step < steps:
            torch.manual_seed(derive(setting.seed, *draws, state.step, shard.rank) % 2**32)
            state.losses.append(self._step(engine, loss(engine, state.step), f"step {state.step} of {name}"))
            state.step += 1
            stop = self._show(state.step, state.losses[-1])
            if stop or (state.step % self.save_every == 0 and state.step < steps):
                self._save(name, state, module, engine)
            if stop:
                raise stop
        module.eval()
        if not state.finished:
            self._save(name, replace(state, finished=True), module, engine)
        self.done_steps += steps
        return state.losses

    def _save(self, name: str, state: FitState, module: nn.Module, engine: TorchEngine) -> None:
        """Keep where the module stands, which is refused where it is not finite."""
        engine.assert_finite(f"{self.section}, {name}", f"lower {self.section}.optimizer.lr")
        self.setting.checkpoints.save(name, state, module, engine)

    def _step(self, engine: TorchEngine, loss: Tensor, where: str) -> float:
        """Take one optimiser step, and return the loss that it was taken on."""
        value, mend = float(loss.detach()), f"at {where}; lower {self.section}.optimizer.lr"
        if not math.isfinite(value):
            raise RunError(f"{self.section}: the loss is {value} {mend}")
        engine.backward(loss)
        if not math.isfinite(engine.step()):
            raise RunError(f"{self.section}: the gradient is not finite {mend}")
        return value

    def _show(self, step: int, loss: float) -> KeyboardInterrupt | None:
        """Tell of a step; gives back the interrupt by which whoever is told ends the fit."""
        done = self.done_steps + step
        if done % 10 == 0 or done == self.total_steps:
            self.setting.checkpoints.show(done, self.total_steps, loss)
        try:
            if self.setting.progress:
                self.setting.progress(done, self.total_steps, {"loss": loss})
        except KeyboardInterrupt as interrupt:
            return interrupt
        return None


def assert_divides(section: str, batch: int, shard: Shard) -> None:
    """Refuses a batch that the processes of a fit cannot divide among them."""
    if batch % shard.size:
        raise UserError(
            f"{section}.batch={batch} does not divide into {shard.size} workers: "
            "change the batch, or fit.replicas of the cluster layout"
        )
