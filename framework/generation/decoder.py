"""One-token-at-a-time decoding of a causal language model with a key-value cache.

`LlamaDecoder` is a lean pass for the Llama family: the arithmetic of the Hugging Face module without its
per-call bookkeeping, which on small models costs more than the arithmetic (see docs/benchmarks.md).
`ModuleDecoder` drives any other causal model through its own forward.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from framework.errors import UserError
from framework.models.huggingface import HfModel
from framework.models.language_head import trunk_of, understood

TURNED_ELEMENTS = 1 << 17
"""Up to this size a CPU multiplies a few rows faster by a turned copy of a weight; above, the copy is no faster."""


def decoder_for(model: HfModel, max_new_tokens: int) -> "ModuleDecoder | LlamaDecoder":
    """The fastest decoder that is exact for this model."""
    return LlamaDecoder(model, max_new_tokens) if _is_plain_llama(model) else ModuleDecoder(model)


def _is_plain_llama(model: HfModel) -> bool:
    """Whether every layer is what `LlamaDecoder` computes: no bias, no adapter, one activation."""
    if model.config.model_type != "llama" or model.config.hidden_act != "silu":
        return False
    linear = [m for m in model.model.layers.modules() if isinstance(m, nn.Linear)]
    plain = all(type(m) is nn.Linear and m.bias is None for m in linear)
    return plain and len(linear) == 7 * len(model.model.layers)


class ModuleDecoder:
    """Feeds tokens to any Hugging Face causal model, through its own trunk and cache; gives last-layer states."""

    def __init__(self, model: HfModel) -> None:
        self.trunk = trunk_of(model)
        # State-space models have another word for it.
        self.cache_name = "cache_params" if understood(self.trunk, cache_params=None) else "past_key_values"
        self.cache: HfModel = None
        self.mask: Tensor
        self.position: Tensor

    def prefill(self, ids: Int[Tensor, "N P"], mask: Bool[Tensor, "N P"], copies: int) -> Float[Tensor, "B H"]:
        """The state after left-padded prompts, each `copies` times in a row; fills the cache.

        A prompt is read once, however many responses to it are wanted, where every layer keeps keys and values and
        nothing else. Other caches cannot be copied, and are filled anew for every response.
        """
        state = self._read(ids, mask.long())
        if copies == 1:
            return state
        if not _only_keys_and_values(self.cache):
            return self._read(ids.repeat_interleave(copies, dim=0), mask.long().repeat_interleave(copies, dim=0))
        self.cache.batch_repeat_interleave(copies)
        self.mask = self.mask.repeat_interleave(copies, dim=0)
        self.position = self.position.repeat_interleave(copies)
        return state.repeat_interleave(copies, dim=0)

    def _read(self, ids: Int[Tensor, "B P"], mask: Int[Tensor, "B P"]) -> Float[Tensor, "B H"]:
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        self.cache, self.mask, self.position = None, mask, positions[:, -1]
        return self._forward(ids, positions)

    def step(self, ids: Int[Tensor, "B"]) -> Float[Tensor, "B H"]:
        """The state after one more token per row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(ids), 1)], dim=1)
        self.position = self.position + 1
        return self._forward(ids.unsqueeze(1), self.position.unsqueeze(1))

    def _forward(self, ids: Int[Tensor, "B L"], positions: Int[Tensor, "B L"]) -> Float[Tensor, "B H"]:
        # A state-space model would take the mask of the whole text for that of the one token.
        seen = self.mask if self.cache is None or self.cache_name == "past_key_values" else None
        told = {"attention_mask": seen, "position_ids": positions, self.cache_name: self.cache, "use_cache": True}
        out = self.trunk(input_ids=ids, **understood(self.trunk, **told))
        self.cache = getattr(out, self.cache_name, None)
        if self.cache is None:
            raise UserError("it keeps no cache of what it has read")
        return out.last_hidden_state[:, -1]


def _only_keys_and_values(cache: HfModel) -> bool:
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer  # slow to import: see models/causal.py

    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in getattr(cache, "layers", [None]))


@dataclass(frozen=True)
class _Layer:
    """One layer's weights as the decoder multiplies them (in x out), and its cache."""

    before_attention: Float[Tensor, "H"]
    qkv: Float[Tensor, "H Q"]
    """Queries scaled, then keys, then values; the two halves that a rotation mixes stand side by side."""
    out: Float[Tensor, "O H"]
    before_mlp: Float[Tensor, "H"]
    gate: Float[Tensor, "H I"]
    up: Float[Tensor, "H I"]
    down: Float[Tensor, "I H"]
    keys: Float[Tensor, "C R D"]
    """Rows x key heads, room, head width."""
    values: Float[Tensor, "C R D"]


class LlamaDecoder:
    """Prefill through the module, then one lean pass per token on a preallocated cache."""

    def __init__(self, model: HfModel, max_new_tokens: int) -> None:
        self.model, self.max_new_tokens = model, max_new_tokens
        config = model.config
        self.num_kv = config.num_key_value_heads
        self.group = config.num_attention_heads // self.num_kv
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.eps = config.rms_norm_eps
        self.width = (config.hidden_size,)

    def prefill(self, ids: Int[Tensor, "N P"], mask: Bool[Tensor, "N P"], copies: int) -> Float[Tensor, "B H"]:
        from transformers import DynamicCache  # slow to import: see models/causal.py

        cache, whole = DynamicCache(config=self.model.config), bool(mask.all())
        positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
        told = {"attention_mask": None if whole else mask.long(), "position_ids": positions, "past_key_values": cache}
        states = self.model.model(input_ids=ids, use_cache=True, **told).last_hidden_state
        device, self.length = ids.device.type, ids.shape[1]
        # The precision that products run in: all that they need is put into it once, not at every token.
        autocast = torch.is_autocast_enabled(device)
        self.dtype = torch.get_autocast_dtype(device) if autocast else states.dtype
        # Many small products at once are several times slower in bfloat16 than in float32 on a CPU.
        self.cache_dtype = torch.float32 if device == "cpu" else self.dtype
        self.layers = [
            self._layer(module, self._cache(_pair(cached.keys), copies), self._cache(cached.values, copies))
            for module, cached in zip(self.model.model.layers, cache.layers, strict=True)
        ]
        self.bias = None
        if not whole:
            room = self.length + self.max_new_tokens
            bias = torch.zeros(len(ids) * copies, room, dtype=self.cache_dtype, device=ids.device)
            bias[:, : self.length].masked_fill_(~mask.repeat_interleave(copies, dim=0), float("-inf"))
            self.bias = bias.repeat_interleave(self.num_kv, dim=0).unsqueeze(1)
        self._rotations(states, positions[:, -1].repeat_interleave(copies))
        return states[:, -1].repeat_interleave(copies, dim=0)

    def _cache(self, filled: Float[Tensor, "N G P D"], copies: int) -> Float[Tensor, "C R D"]:
        """Room for every token to come, the prompt's keys or values already there."""
        repeated = filled.repeat_interleave(copies, dim=0).flatten(0, 1)
        tokens = self.length + self.max_new_tokens
        room = repeated.new_zeros(repeated.shape[0], tokens, self.head_dim, dtype=self.cache_dtype)
        room[:, : self.length] = repeated
        return room

    def _layer(self, module: HfModel, keys: Float[Tensor, "C R D"], values: Float[Tensor, "C R D"]) -> _Layer:
        attention, mlp = module.self_attn, module.mlp
        query = _pair(attention.q_proj.weight.view(-1, self.head_dim, self.width[0]).transpose(1, 2))
        key = _pair(attention.k_proj.weight.view(-1, self.head_dim, self.width[0]).transpose(1, 2))
        rotated = torch.cat([query * attention.scaling, key]).transpose(1, 2).flatten(0, 1)
        return _Layer(
            before_attention=module.input_layernorm.weight,
            qkv=self._for_product(torch.cat([rotated, attention.v_proj.weight])),
            out=self._for_product(attention.o_proj.weight),
            before_mlp=module.post_attention_layernorm.weight,
            gate=self._for_product(mlp.gate_proj.weight),
            up=self._for_product(mlp.up_proj.weight),
            down=self._for_product(mlp.down_proj.weight),
            keys=keys,
            values=values,
        )

    def _for_product(self, weight: Float[Tensor, "N M"]) -> Float[Tensor, "M N"]:
        """A linear layer's weight, turned."""
        weight = weight.to(self.dtype)
        small = weight.device.type == "cpu" and weight.numel() <= TURNED_ELEMENTS
        return weight.T.contiguous() if small else weight.T

    def _rotations(self, states: Float[Tensor, "N P H"], last: Int[Tensor, "B"]) -> None:
        """The rotation of every position still to come, per row (rows differ by left padding), as complex numbers."""
        ahead = last.unsqueeze(1) + 1 + torch.arange(self.max_new_tokens, device=last.device)
        cos, sin = self.model.model.rotary_emb(states, ahead)
        half = self.head_dim // 2
        turns = torch.complex(cos[..., :half].float(), sin[..., :half].float())
        self.turns = turns.transpose(0, 1).unsqueeze(2).contiguous()
        self.taken = 0

    @torch.inference_mode()  # cheaper per operation than no_grad, and nothing here is ever differentiated
    def step(self, ids: Int[Tensor, "B"]) -> Float[Tensor, "B H"]:
        # Weights and caches are in the precision of products already: autocast would only look at each again.
        with torch.autocast(ids.device.type, enabled=False):
            return self._step(ids)

    def _step(self, ids: Int[Tensor, "B"]) -> Float[Tensor, "B H"]:
        at, end = self.length, self.length + 1
        turn, bias = self.turns[self.taken], None if self.bias is None else self.bias[..., :end]
        num_queries, num_rotated = self.num_kv * self.group, self.num_kv * (self.group + 1)
        widths = (num_rotated * self.head_dim, self.num_kv * self.head_dim)
        by_pair, by_head = (len(ids), num_rotated, -1, 2), (-1, self.head_dim)
        by_query, dtype = (-1, self.group, self.head_dim), self.dtype
        hidden = F.embedding(ids, self.model.model.embed_tokens.weight)
        for layer in self.layers:
            normed = F.rms_norm(hidden, self.width, layer.before_attention, self.eps).to(dtype)
            rotated, value = torch.mm(normed, layer.qkv).split_with_sizes(widths, dim=1)
            # Pairs stand side by side, so turning one is one complex product.
            pairs = torch.view_as_complex(rotated.float().view(by_pair))
            rotated = torch.view_as_real(pairs * turn).flatten(2).to(self.cache_dtype)
            layer.keys[:, at] = rotated[:, num_queries:].reshape(by_head)
            layer.values[:, at] = value.reshape(by_head)
            # Query heads that share a key head stand as query positions: no key is copied.
            query, keys = rotated[:, :num_queries].reshape(by_query), layer.keys[:, :end].transpose(1, 2)
            scores = torch.bmm(query, keys) if bias is None else torch.baddbmm(bias, query, keys)
            mixed = torch.bmm(torch.softmax(scores, dim=-1), layer.values[:, :end])
            hidden = hidden + torch.mm(mixed.view(len(ids), -1).to(dtype), layer.out)
            normed = F.rms_norm(hidden, self.width, layer.before_mlp, self.eps).to(dtype)
            inner = F.silu(torch.mm(normed, layer.gate)) * torch.mm(normed, layer.up)
            hidden = hidden + torch.mm(inner, layer.down)
        self.length, self.taken = end, self.taken + 1
        return F.rms_norm(hidden, self.width, self.model.model.norm.weight, self.eps)


def _pair(x: Float[Tensor, "*A D"]) -> Float[Tensor, "*A D"]:
    """The last axis with its two halves interleaved: what a rotation mixes becomes adjacent."""
    return x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)
