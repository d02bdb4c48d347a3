"""Reading a causal language model: every weight there, no foreign code, nothing pickled."""

import json
from pathlib import Path
from typing import Any

from framework.data.paths import expand
from framework.errors import UserError, first_line
from framework.models.huggingface import HfModel


def load_causal(folder: str | Path, where: str, **options: Any) -> HfModel:
    """A causal language model in float32, or as `options` of `from_pretrained` say; `where` is what errors name.

    Raises:
        UserError: no such model, one of another kind, or one with weights missing; they would be random numbers.
    """
    # Slow to import, and a configuration is checked without them.
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    if not options.get("gguf_file"):
        refuse_type(folder, where)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(folder), **{"dtype": torch.float32} | options,
            output_loading_info=True, use_safetensors=True, trust_remote_code=False,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = first_line(error)
        raise UserError(f"{where}: no causal language model can be loaded ({reason})") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"{where}: {len(missing)} weights of the model are missing, {missing[0]} for one, and would be random "
            "numbers: take the whole model"
        )
    make_savable(model)
    return model


def refuse_type(folder: str | Path, where: str) -> None:
    """Refuses what its config.json says is no causal language model; reads nothing else.

    Raises:
        UserError: a type that transformers does not know, or an encoder, or an encoder with a decoder.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    file = Path(expand(str(folder)), "config.json")
    if not file.is_file():
        return
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        kind = settings.get("model_type")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file}: not JSON of a model's settings ({error})") from error
    why = None
    if kind not in CONFIG_MAPPING_NAMES:
        why = "is not known to transformers, and code that comes with a model is never run"
    elif kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        why = "is not a causal language model"
    elif settings.get("is_encoder_decoder"):
        why = "with an encoder is not a causal language model"
    if why:
        raise UserError(f"{where}: a model of type {kind!r} {why}; name another")


def make_savable(model: HfModel) -> None:
    """Keep the special ids alone of settings for generation that transformers loads and refuses to save."""
    from transformers import GenerationConfig

    settings = model.generation_config
    try:
        settings.validate(strict=True)
    except ValueError:
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        model.generation_config = GenerationConfig(**{name: getattr(settings, name) for name in names})
