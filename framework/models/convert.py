"""Any pretrained causal model, once, into plain Hugging Face layout: safetensors, config, tokenizer."""

import importlib.util
import json
from pathlib import Path
from typing import Final, Literal

import torch
from huggingface_hub import snapshot_download
from transformers import GenerationConfig

from framework.data.paths import expand
from framework.errors import UserError, first_line
from framework.models.adapters import base_of, merged, tokenizer_place
from framework.models.causal import load_causal, make_savable
from framework.models.huggingface import HfModel
from framework.models.proof import prove
from framework.models.tokenizer import check_sizes, load_tokenizer

SOURCE_FILE: Final = "source.json"
"""Beside a converted model: what it was made from."""
_WANTED: Final = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")


def to_plain(
    source: str, out: Path, gguf_file: str | None = None, dtype: Literal["float32", "bfloat16"] = "bfloat16"
) -> None:
    """Write the model of a hub id or folder into the folder `out`, with its tokenizer and chat template.

    A GGUF file is read in float32 and stripped of its quantiser before it is stored, so that `from_pretrained` opens the
    copy as an ordinary model. A `UserError` where there is no such model, weights are missing, its samples would not be
    the model's own, GGUF lacks its packages, or the tokenizer does not fit.
    """
    base = None if gguf_file else base_of(source, source)
    folder = _folder(base or source, gguf_file)
    # The tokenizer is checked first: it takes no time, and reading a GGUF file does.
    tokenizer = load_tokenizer(tokenizer_place(source, str(folder)) if base else folder)
    model = _read_gguf(folder, gguf_file, source) if gguf_file else load_causal(folder, source)
    model = merged(model, source, source) if base else model
    check_sizes(tokenizer, model.get_input_embeddings().num_embeddings, source)
    prove(model, source)
    model.to(getattr(torch, dtype)).save_pretrained(out)
    tokenizer.save_pretrained(out)
    record = {"source": source, "gguf_file": gguf_file, "dtype": dtype}
    (out / SOURCE_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _folder(source: str, gguf_file: str | None) -> Path:
    """The local folder of a source; a hub id is fetched into the hub's cache."""
    folder = Path(expand(source))
    if not folder.is_dir():
        if source.count("/") > 1 or source.startswith((".", "/", "~", "$")):
            raise UserError(f"{source}: no such folder")
        try:
            folder = Path(snapshot_download(source, allow_patterns=[*_WANTED, *([gguf_file] if gguf_file else [])]))
        except (OSError, ValueError) as error:
            raise UserError(f"{source}: no such folder, and the hub cannot give it ({first_line(error)})") from error
    found = ", ".join(sorted(p.name for p in folder.glob("*.gguf")))
    if gguf_file and not (folder / gguf_file).is_file():
        raise UserError(f"{source} has no {gguf_file}; it has {found or 'no .gguf file'}")
    if not (folder / "config.json").is_file() and not gguf_file:
        mend = f"; set gguf_file to one of {found}" if found else "; name the folder of a Hugging Face model"
        raise UserError(f"{source} has no config.json{mend}")
    return folder


def _read_gguf(folder: Path, gguf_file: str, source: str) -> HfModel:
    if missing := [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]:
        raise UserError(
            f"{source}/{gguf_file}: reading GGUF needs {' and '.join(missing)}; pip install 'goldilocks[gguf]'"
        )
    model = load_causal(folder, f"{source}/{gguf_file}", gguf_file=gguf_file)
    # The weights are dense by now, and these marks would stop the model from being cast and saved.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
        make_savable(model)
    return model
