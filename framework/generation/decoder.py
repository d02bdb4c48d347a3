"""One-token-at-a-time decoding of a causal language model with a key-value cache.

`LlamaDecoder` is a lean pass for the Llama family: the same arithmetic as the Hugging Face module
without its per-call bookkeeping, which on small models costs more than the arithmetic (see
docs/benchmarks.md). `ModuleDecoder` drives any other causal model through its own forward.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class Decoder(Protocol):
    """Feeds tokens to a model and returns last-layer states."""

    def prefill(self, ids: Int[Tensor, "B P"], mask: Bool[Tensor, "B P"]) -> Float[Tensor, "B H"]:
        """The state after left-padded prompts; fills the cache."""
        ...

    def step(self, ids: Int[Tensor, "B"]) -> Float[Tensor, "B H"]:
        """The state after one more token per row."""
        ...


def decoder_for(model: nn.Module, max_new_tokens: int) -> Decoder:
    """The fastest decoder that is exact for this model."""
    if model.config.model_type == "llama" and model.config.hidden_act == "silu":
        return LlamaDecoder(model, max_new_tokens)
    return ModuleDecoder(model)


class ModuleDecoder:
    """Any Hugging Face causal model, through its own forward and cache."""

    def __init__(self, model: nn.Module) -> None:
        from transformers import DynamicCache  # slow to import: see models/causal.py

        self.model = model
        self.cache = DynamicCache(config=model.config)
        self.mask: Tensor
        self.position: Tensor

    def prefill(self, ids: Int[Tensor, "B P"], mask: Bool[Tensor, "B P"]) -> Float[Tensor, "B H"]:
        self.mask = mask.long()
        positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0)
        self.position = positions[:, -1]
        return self._forward(ids, positions)

    def step(self, ids: Int[Tensor, "B"]) -> Float[Tensor, "B H"]:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(ids), 1)], dim=1)
        self.position = self.position + 1
        return self._forward(ids.unsqueeze(1), self.position.unsqueeze(1))

    def _forward(self, ids: Int[Tensor, "B L"], positions: Int[Tensor, "B L"]) -> Float[Tensor, "B H"]:
        out = self.model.base_model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        return out.last_hidden_state[:, -1]


class LlamaDecoder:
    """Prefill through the module, then one fused-by-hand pass per token on a preallocated cache."""

    def __init__(self, model: nn.Module, max_new_tokens: int) -> None:
        self.model, self.max_new_tokens = model, max_new_tokens
        config = model.config
        self.num_kv = config.num_key_value_heads
        self.group = config.num_attention_heads // self.num_kv
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.eps = config.rms_norm_eps
        self.layers = list(model.model.layers)

    def prefill(self, ids: Int[Tensor, "B P"], mask: Bool[Tensor, "B P"]) -> Float[Tensor, "B H"]:
        from transformers import DynamicCache  # slow to import: see models/causal.py

        cache = DynamicCache(config=self.model.config)
        whole = bool(mask.all())
        positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
        states = self.model.model(
            input_ids=ids,
            attention_mask=None if whole else mask.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        rows, width = ids.shape
        room = width + self.max_new_tokens
        self.keys, self.values = [], []
        for layer in cache.layers:
            keys = layer.keys.new_zeros(rows, self.num_kv, room, self.head_dim)
            values = torch.zeros_like(keys)
            keys[:, :, :width], values[:, :, :width] = layer.keys, layer.values
            self.keys.append(keys)
            self.values.append(values)
        self.length = width
        self.bias = None
        if not whole:
            visible = torch.cat([mask, mask.new_ones(rows, self.max_new_tokens)], dim=1)
            bias = torch.zeros(rows, room, dtype=states.dtype, device=ids.device)
            self.bias = bias.masked_fill(~visible, float("-inf"))[:, None, None, :]
        self._rotary_tables(states, positions[:, -1])
        return states[:, -1]

    def _rotary_tables(self, states: Float[Tensor, "B P H"], last: Int[Tensor, "B"]) -> None:
        """Cosines and sines of every position still to come, per row (rows differ by left padding)."""
        ahead = last.unsqueeze(1) + 1 + torch.arange(self.max_new_tokens, device=last.device)
        cos, sin = self.model.model.rotary_emb(states, ahead)
        self.cos, self.sin = cos.transpose(0, 1).unsqueeze(2), sin.transpose(0, 1).unsqueeze(2)
        self.taken = 0

    def step(self, ids: Int[Tensor, "B"]) -> Float[Tensor, "B H"]:
        rows = len(ids)
        cos, sin = self.cos[self.taken], self.sin[self.taken]
        end = self.length + 1
        bias = None if self.bias is None else self.bias[..., :end]
        hidden = self.model.model.embed_tokens(ids)
        width = (hidden.shape[-1],)
        for layer, keys, values in zip(self.layers, self.keys, self.values, strict=True):
            attention, mlp = layer.self_attn, layer.mlp
            normed = F.rms_norm(hidden, width, layer.input_layernorm.weight, self.eps)
            query = attention.q_proj(normed).view(rows, -1, self.head_dim)
            key = attention.k_proj(normed).view(rows, -1, self.head_dim)
            rotated = _rotate(torch.cat([query, key], dim=1), cos, sin)
            keys[:, :, self.length] = rotated[:, -self.num_kv :]
            values[:, :, self.length] = attention.v_proj(normed).view(rows, self.num_kv, self.head_dim)
            query = rotated[:, : -self.num_kv].view(rows, self.num_kv, self.group, self.head_dim)
            # Query heads that share a key head stand as query positions: no key is copied.
            mixed = F.scaled_dot_product_attention(
                query, keys[:, :, :end], values[:, :, :end], attn_mask=bias, scale=attention.scaling
            )
            hidden = hidden + attention.o_proj(mixed.reshape(rows, -1))
            normed = F.rms_norm(hidden, width, layer.post_attention_layernorm.weight, self.eps)
            hidden = hidden + mlp.down_proj(F.silu(mlp.gate_proj(normed)) * mlp.up_proj(normed))
        self.length, self.taken = end, self.taken + 1
        return F.rms_norm(hidden, width, self.model.model.norm.weight, self.eps)


def _rotate(
    x: Float[Tensor, "B N D"], cos: Float[Tensor, "B 1 D"], sin: Float[Tensor, "B 1 D"]
) -> Float[Tensor, "B N D"]:
    """Rotary position embedding of one position, halves convention."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
