"""The seam between an update and the machinery that takes its steps. This one: AdamW, float32 master weights,
optional bfloat16 autocast, and every weight whole. One that shards weights overrides what differs.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from framework.errors import DivergedError
from framework.precision import Precision
from framework.training.engine import Optimizer

TENSORS_FILE, COUNT_FILE = "optimizer.safetensors", "optimizer.json"


class TorchEngine:
    """Owns a module's gradients and optimiser. Losses add up until `step`."""

    def __init__(
        self, module: nn.Module, optimizer: Optimizer, total_steps: int | None = None, precision: Precision = "float32"
    ) -> None:
        self.module, self.settings, self.precision = module, optimizer, precision
        self.total_steps, self.steps_taken = total_steps, 0
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        own = optimizer.model_dump(include={"lr", "betas", "eps", "weight_decay"})
        self.adam = torch.optim.AdamW(self.parameters, **own, fused=True)

    @property
    def device(self) -> torch.device:
        """Where the module computes."""
        return self.parameters[0].device

    def __call__(self, *args: Any) -> Any:
        """The module's forward pass: the only place where its weights may lie in parts."""
        return self.module(*args)

    def whole_weights(self) -> contextlib.AbstractContextManager[None]:
        """Every weight whole in this process, for code that reads weights itself: sampling and saving."""
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`."""
        loss.backward()

    def step(self) -> float:
        """Clip, step, clear; returns the gradient norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        for group in self.adam.param_groups:
            group["lr"] = self.settings.lr_at(self.steps_taken, self.total_steps)
        if bool(torch.isfinite(norm)):  # else the caller stops the run, with the weights still good
            self.adam.step()
            self.steps_taken += 1
        self.adam.zero_grad(set_to_none=True)
        return float(norm)

    def autocast(self) -> torch.autocast:
        """The precision that forward passes run in."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")

    def assert_finite(self, where: str, mend: str) -> None:
        """A `DivergedError` where a weight or a moment is no finite number: such a state is not to be called good."""
        moments = [(f"moment {kind}", value) for own in self.adam.state.values() for kind, value in own.items()]
        for name, value in [*self.module.named_parameters(), *moments]:
            if not bool(torch.isfinite(value).all()):
                raise DivergedError(f"{where}: {name} is not finite, and is not saved; {mend}")

    def save(self, folder: Path) -> None:
        """Write moments as safetensors and counters as JSON, nothing pickled; weights are their owner's to write."""
        tensors = {
            f"{index}.{name}": value.contiguous()
            for index, state in self.adam.state_dict()["state"].items()
            for name, value in state.items()
        }
        save_file(tensors, folder / TENSORS_FILE)
        (folder / COUNT_FILE).write_text(json.dumps({"steps_taken": self.steps_taken}) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in load_file(folder / TENSORS_FILE).items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        whole = self.adam.state_dict()
        whole["state"] = state
        self.adam.load_state_dict(whole)
        self.steps_taken = json.loads((folder / COUNT_FILE).read_text(encoding="utf-8"))["steps_taken"]
