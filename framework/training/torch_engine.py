"""The plain torch engine: one process, AdamW, float32 master weights, optional bfloat16 autocast."""

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from framework.training.engine import Optimizer

TENSORS_FILE, COUNT_FILE = "optimizer.safetensors", "optimizer.json"


class TorchEngine:
    """Takes optimiser steps on one module."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        total_steps: int | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        self.module, self.settings, self.total_steps = module, optimizer, total_steps
        self.steps_taken = 0
        self.precision = precision
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.adam = torch.optim.AdamW(
            self.parameters,
            lr=optimizer.lr,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            fused=True,
        )

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> float:
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        for group in self.adam.param_groups:
            group["lr"] = self.settings.lr_at(self.steps_taken, self.total_steps)
        if bool(torch.isfinite(norm)):  # else the caller stops the run, with the weights still good
            self.adam.step()
            self.steps_taken += 1
        self.adam.zero_grad(set_to_none=True)
        return float(norm)

    def autocast(self) -> torch.autocast:
        device = self.parameters[0].device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")

    def save(self, folder: Path) -> None:
        """Optimiser moments as safetensors, counters as JSON: nothing is pickled."""
        tensors = {
            f"{index}.{name}": value.contiguous()
            for index, state in self.adam.state_dict()["state"].items()
            for name, value in state.items()
        }
        save_file(tensors, folder / TENSORS_FILE)
        (folder / COUNT_FILE).write_text(json.dumps({"steps_taken": self.steps_taken}) + "\n")

    def load(self, folder: Path) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in load_file(folder / TENSORS_FILE).items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        whole = self.adam.state_dict()
        whole["state"] = state
        self.adam.load_state_dict(whole)
        self.steps_taken = json.loads((folder / COUNT_FILE).read_text())["steps_taken"]
