"""A tiny model, with weights that do something, of any family that transformers can make one of from a few sizes."""

from typing import Any

import torch
from transformers import AutoConfig

VOCABULARY = 64
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
"""What most families call their sizes."""


def tiny_model(kind: str, auto: Any) -> Any:
    torch.manual_seed(0)
    model = auto.from_config(tiny_config(kind))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.is_floating_point():
                weight.add_(torch.randn_like(weight) * 0.1)
    return model.float().eval()


def tiny_config(kind: str) -> Any:
    plain = AutoConfig.for_model(kind)
    known = {name for name in SMALL if name in plain.attribute_map or name in plain.to_dict()}
    return AutoConfig.for_model(kind, **{name: value for name, value in SMALL.items() if name in known})
