"""Backbones that a reward head can stand on: loading them, and one vector per text."""

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from framework.data.paths import expand
from framework.errors import UserError, first_line
from framework.models.adapters import base_of
from framework.models.huggingface import HfModel
from framework.models.proof import prove_padding

POOLED = {"bert", "roberta", "xlm-roberta", "camembert", "mpnet", "albert"}
"""Model types that would make a pooler of their own, which we do not use."""


def reads_last_token(model_type: str) -> bool:
    """Whether a model of this type sees leftwards only, so that its last token alone has seen the whole text.

    transformers' own lists decide: what is made for masked tokens sees both ways. A `UserError` where a type is in
    neither, such as an encoder-decoder.
    """
    from transformers.models.auto import modeling_auto  # slow to import: see causal.py

    if model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return False
    if model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return True
    what = f"an encoder of type {model_type!r} is neither a causal nor a masked language model"
    raise UserError(f"{what}: name another in fit_reward.encoder")


def reads_and_takes(path: str | Path) -> tuple[bool, int | None]:
    """Whether the encoder of a hub id or folder is read at its last token, and how many tokens it can take."""
    from transformers import AutoConfig  # slow to import: see causal.py

    where = f"fit_reward.encoder={path}"
    if base_of(path, where):
        raise UserError(f"{where} is a LoRA adapter: merge it first (merge_and_unload of peft), and name that")
    try:
        config = AutoConfig.from_pretrained(expand(str(path)), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: no model can be read there ({first_line(error)})") from error
    return reads_last_token(config.model_type), positions_of(config)


def positions_of(config: Any) -> int | None:
    """Tokens that a model of these settings has positions for; None for one without a limit."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions and ("roberta" in config.model_type or config.model_type in ("camembert", "mpnet")):
        positions -= config.pad_token_id + 1  # theirs are counted from the pad id on
    return positions


def load_encoder(path: str | Path) -> HfModel:
    """The backbone of a Hugging Face model in float32, without language-model head or pooler.

    A `UserError` where weights are missing, and would be random numbers, or a text's vector depends on its batch.
    """
    from transformers import AutoModel  # slow to import: see causal.py

    folder = expand(str(path))
    config = Path(folder, "config.json")
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type") if config.exists() else None
    options = {"add_pooling_layer": False} if kind in POOLED else {}  # no pooler is asked for, so its weights stay out
    model, info = AutoModel.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, trust_remote_code=False, **options
    )
    if missing := sorted(name for name in info["missing_keys"] if "pooler" not in name):
        raise UserError(f"{path}: {len(missing)} weights are missing, {missing[0]} for one: not the whole model")
    causal = reads_last_token(model.config.model_type)
    prove_padding(model, lambda ids, mask: pooled(model, ids, mask, causal), str(path))
    return model


def pooled(
    encoder: HfModel, input_ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"], causal: bool
) -> Float[Tensor, "B H"]:
    """One vector per right-padded text: the last real token's state if causal, else the mean."""
    if causal:
        # Right padding cannot be seen by real tokens under causal attention.
        states = encoder(input_ids=input_ids, use_cache=False).last_hidden_state
        last = mask.sum(dim=1).clamp(min=1) - 1
        return states[torch.arange(len(states), device=states.device), last]
    states = encoder(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
