"""A tiny model, with weights that do something, of any family that transformers can make one of from a few sizes."""

from typing import Any

import torch
from transformers import AutoConfig

VOCABULARY = 64
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 64,
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "is_decoder": True, "layer_types": None, "rotary_dim": 8,
    "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "encoder_layers": 2,
    "encoder_attention_heads": 4, "encoder_ffn_dim": 48, "d_model": 32, "d_inner": 48, "ffn_dim": 48,
    "word_embed_proj_dim": 32, "embedding_size": 32, "num_decoder_layers": 2, "d_kv": 8, "d_ff": 48,
    "num_experts": 4, "n_routed_experts": 4, "num_local_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1, "depth": 2, "num_global_layers": 1, "num_mel_bins": 8, "vision_output_dim": 32,
    "moe_topk": 2, "expert_ffn_hidden_size": 16,
}  # fmt: skip
"""What families call their sizes."""
LATENT: dict[str, Any] = {
    "num_key_value_heads": 4, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "kv_lora_rank": 16,
    "q_lora_rank": 16, "qk_head_dim": 16, "index_head_dim": 16, "index_n_heads": 2,
}  # fmt: skip
"""Attention with compressed keys and values."""
LINEAR: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
MAMBA2: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 4}
OWN: dict[str, dict[str, Any]] = {
    "axk1": LATENT, "axk2": LATENT | {"head_dim": 8},
    "bamba": MAMBA2 | {"attn_layer_indices": [1]}, "dots1": {"n_shared_experts": 1},
    "deepseek_v2": LATENT, "deepseek_v3": LATENT, "deepseek_v32": LATENT, "glm4_moe_lite": LATENT,
    "glm_moe_dsa": LATENT, "longcat_flash": LATENT | {"num_layers": 1, "zero_expert_num": 2},
    "minicpm3": LATENT, "youtu": LATENT,
    "falcon_h1": MAMBA2 | {"mamba_d_ssm": 64},
    "gemma4_text": {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8, "num_experts": None},
    "gemma3n_text": {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8, "laurel_rank": 8,
        "num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"],
        "activation_sparsity_pattern": [0.0, 0.0]},
    "cohere_compass_text": {"rope_parameters": {
        name: {"rope_type": "default", "rope_theta": 1e4} for name in ("full_attention", "sliding_attention")
    }},
    "kimi_linear": LATENT | {"layer_types": ["linear_attention", "full_attention"]},
    "llama4_text": {"layer_types": ["chunked_attention", "full_attention"], "no_rope_layers": [1, 0],
        "moe_layers": [1], "intermediate_size_mlp": 48},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": MAMBA2 | {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4, "use_mamba_kernels": False},
    "lfm2": {"layer_types": ["conv", "full_attention"]}, "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 4},
    "nemotron_h": {"mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 1, "chunk_size": 4,
        "layers_block_type": ["mamba", "attention"]},
    "qwen3_5_moe_text": LINEAR, "qwen3_5_text": LINEAR, "qwen3_next": LINEAR, "qwen4_exp_text": LINEAR | {"num_hidden_layers": 2},
    "xlnet": {"d_head": 8}, "reformer": {"axial_pos_embds": False, "is_decoder": True},
    "zamba": {"num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "mamba"], "mamba_d_state": 4,
        "n_mamba_heads": 2, "attention_hidden_size": 64, "attention_head_dim": 16},
    "zamba2": {"num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "mamba"], "mamba_d_state": 4,
        "mamba_headdim": 8, "n_mamba_heads": 8, "chunk_size": 4, "attention_hidden_size": 64,
        "attention_head_dim": 16},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip


def tiny_model(kind: str, auto: Any, **settings: Any) -> Any:
    """A model of the class that `auto` has for the type, on the CPU in float32, its weights away from their start."""
    torch.manual_seed(0)
    model = auto.from_config(tiny_config(kind, **settings)).float().eval()
    assert sum(weight.numel() for weight in model.parameters()) < 3e7, "not tiny"
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def tiny_config(kind: str, **settings: Any) -> Any:
    """Its settings, small; those of its parts too, where it has several."""
    plain = AutoConfig.for_model(kind)
    parts = {name: getattr(plain, name, None) for name in plain.sub_configs}
    small = {name: _small(part, OWN.get(part.model_type, {})) for name, part in parts.items() if part is not None}
    return AutoConfig.for_model(kind, **(_small(plain, OWN.get(kind, {}) | settings) | small))


def _small(plain: Any, own: dict[str, Any]) -> dict[str, Any]:
    names = {*plain.to_dict(), *plain.attribute_map}
    aliases = {plain.attribute_map[name] for name in SMALL if name in plain.attribute_map}
    wanted = {name: value for name, value in SMALL.items() if name in names and name not in aliases}
    if not isinstance(plain.to_dict().get("layer_types"), list) or hasattr(type(plain), "layers_block_type"):
        wanted.pop("layer_types", None)
    return wanted | own
