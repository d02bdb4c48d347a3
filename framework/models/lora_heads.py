"""One frozen encoder with K low-rank adapters, each with a linear head of its own.

Source: Zhang et al. 2024 (arXiv 2401.16635), section 3; adapters are peft's.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from framework.models.encoders import load_encoder, pooled, reads_last_token
from framework.models.huggingface import HfModel
from framework.models.reward_heads import Member, load_heads, save_heads


class LoraHeads(Member):
    """K adapters on one encoder. Scoring passes over a text once per adapter."""

    shows_features = True

    def __init__(self, encoder: HfModel, num_heads: int, rank: int, alpha: int) -> None:
        """Adapters start as no change to the encoder; heads are drawn from torch's global generator."""
        from peft import LoraConfig, get_peft_model  # slow to import, and few models need it

        super().__init__()
        width = encoder.config.hidden_size
        self.causal = reads_last_token(encoder.config.model_type)
        settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear")
        self.encoder: HfModel = get_peft_model(encoder, settings, adapter_name=_adapter(0))
        for k in range(1, num_heads):
            self.encoder.add_adapter(_adapter(k), settings)
        heads = [nn.Linear(width, 1) for _ in range(num_heads)]
        for head in heads:
            nn.init.normal_(head.weight, std=1 / (width + 1) ** 0.5)
            nn.init.zeros_(head.bias)
        self.heads: Any = nn.ModuleList(heads)

    @property
    def num_heads(self) -> int:
        return len(self.heads)

    def member(self, k: int) -> "LoraMember":
        """Adapter k and its head as a module with one head, to be fitted apart from the others."""
        return LoraMember(self, k)

    def read(
        self, input_ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "K B"], Float[Tensor, "K B H"]]:
        scores, features = zip(*(self.read_one(k, input_ids, mask) for k in range(self.num_heads)), strict=True)
        return torch.cat(scores), torch.stack(features)

    def read_one(
        self, k: int, input_ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "1 B"], Float[Tensor, "B H"]]:
        """What head k says, and of which features: of the encoding that its own adapter makes."""
        # Only an adapter that is being fitted may ask for gradients.
        self.encoder.set_adapter(_adapter(k), inference_mode=not torch.is_grad_enabled())
        features = pooled(self.encoder, input_ids, mask, self.causal)
        with torch.autocast(features.device.type, enabled=False):  # as in RewardHeads
            features = features.to(self.heads[k].weight.dtype)
            return self.heads[k](features).float().T, features

    def save(self, folder: Path) -> None:
        """Write the encoder in Hugging Face layout, adapters in peft's, and all heads in one file."""
        base = self.encoder.get_base_model()
        plain = {
            name.replace(".base_layer.", "."): value.contiguous()
            for name, value in base.state_dict().items()
            if ".lora_" not in name
        }
        base.save_pretrained(folder, state_dict=plain)
        for k in range(self.num_heads):
            settings = self.encoder.peft_config[_adapter(k)]
            settings.target_modules = sorted(settings.target_modules)  # a set has another order in each process
            self.encoder.save_pretrained(str(folder), selected_adapters=[_adapter(k)])
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
        save_heads(
            torch.cat([head.weight for head in self.heads]), torch.cat([head.bias for head in self.heads]), folder
        )

    @classmethod
    def load(cls, folder: Path, num_heads: int, rank: int, alpha: int) -> "LoraHeads":
        """Read what `save` wrote; a `UserError` where heads are missing."""
        module = cls(load_encoder(folder), num_heads, rank, alpha)
        for k in range(num_heads):
            module.encoder.load_adapter(str(folder / _adapter(k)), _adapter(k))
        saved = load_heads(folder, (num_heads, module.heads[0].in_features))
        for k, head in enumerate(module.heads):
            head.load_state_dict({name: value[k : k + 1] for name, value in saved.items()})
        return module


class LoraMember(Member):
    """One adapter of an ensemble and its head: what is fitted, and what a checkpoint of the fit holds."""

    num_heads = 1

    def __init__(self, ensemble: LoraHeads, k: int) -> None:
        super().__init__()
        self.k, self.causal = k, ensemble.causal
        self.ensemble = [ensemble]  # a list, so that the other adapters are not this module's parameters
        ensemble.encoder.set_adapter(_adapter(k))
        parameters = ensemble.encoder.named_parameters()
        self.adapter = nn.ParameterDict(
            {name.replace(".", "/"): value for name, value in parameters if f".{_adapter(k)}." in name}
        )
        self.head = ensemble.heads[k]

    def train(self, mode: bool = True) -> "LoraMember":
        """The encoder is no module of this one, but its dropout is part of the fit."""
        super().train(mode)
        self.ensemble[0].encoder.train(mode)
        return self

    def forward(self, input_ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "1 B"]:
        return self.ensemble[0].read_one(self.k, input_ids, mask)[0]

    def save(self, folder: Path) -> None:
        raise AssertionError("save the ensemble")


def _adapter(k: int) -> str:
    return f"adapter_{k}"
