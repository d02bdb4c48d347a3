"""Any pretrained causal model, once, into plain Hugging Face layout: safetensors, config, tokenizer."""

import hashlib
import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Final, Literal

import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from framework.data.paths import expand
from framework.errors import UserError
from framework.models.tokenizer import check_sizes, load_tokenizer

SOURCE_FILE: Final = "source.json"
"""Beside a converted model: what it was made from."""
_EDGE_BYTES: Final = 1 << 20
_WANTED: Final = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")


def to_plain(
    source: str,
    out: Path,
    gguf_file: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
) -> Path:
    """The folder `out` with the model of a hub id or folder, its tokenizer and chat template.

    Nothing is done where `out` already holds the same source in the same dtype. A GGUF file is read in
    float32 and stripped of its quantiser before it is stored, so that `from_pretrained` opens the copy
    as an ordinary model. The copy appears whole or not at all.

    Raises:
        UserError: no such model, GGUF without its packages, a tokenizer that does not fit, or an `out`
            that holds something else.
    """
    folder = _folder(source, gguf_file)
    made_from = {"source": source, "gguf_file": gguf_file, "dtype": dtype, "hash": _hash(folder)}
    if _already(out, made_from):
        return out
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / SOURCE_FILE).is_file():
        raise UserError(f"{out} exists and is not a converted model: name another folder, or remove it")
    # The tokenizer is checked first: it takes no time, and reading a GGUF file does.
    tokenizer = load_tokenizer(folder)
    model = _read_gguf(folder, gguf_file, source) if gguf_file else _read_plain(folder, source, dtype)
    check_sizes(tokenizer, model.get_input_embeddings().num_embeddings, source)
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        model.to(getattr(torch, dtype)).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / SOURCE_FILE).write_text(json.dumps(made_from, indent=1) + "\n", encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    except OSError as error:
        if not _already(out, made_from):
            raise UserError(
                f"{out}: the converted model cannot be written ({error.strerror or error})"
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _folder(source: str, gguf_file: str | None) -> Path:
    """The local folder of a source; a hub id is fetched into the hub's cache."""
    folder = Path(expand(source))
    if not folder.is_dir():
        if source.count("/") > 1 or source.startswith((".", "/", "~", "$")):
            raise UserError(f"{source}: no such folder")
        wanted = [*_WANTED, gguf_file] if gguf_file else list(_WANTED)
        try:
            folder = Path(snapshot_download(source, allow_patterns=wanted))
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{source}: no such folder, and the hub cannot give it ({reason})") from error
    if gguf_file and not (folder / gguf_file).is_file():
        found = ", ".join(sorted(p.name for p in folder.glob("*.gguf"))) or "no .gguf file"
        raise UserError(f"{source} has no {gguf_file}; it has {found}")
    if not (folder / "config.json").is_file() and not gguf_file:
        found = ", ".join(sorted(p.name for p in folder.glob("*.gguf")))
        mend = f"; set gguf_file to one of {found}" if found else "; name the folder of a Hugging Face model"
        raise UserError(f"{source} has no config.json{mend}")
    return folder


def _hash(folder: Path) -> str:
    """Names, sizes and both ends of every file: tells two models apart without reading gigabytes."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name}/{size}/".encode())
        with path.open("rb") as file:
            digest.update(file.read(_EDGE_BYTES))
            file.seek(max(0, size - _EDGE_BYTES))
            digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()


def _already(out: Path, made_from: dict[str, str | None]) -> bool:
    try:
        found = json.loads((out / SOURCE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    # The same model by another path is the same model.
    return all(found.get(key) == value for key, value in made_from.items() if key != "source")


def _read_plain(folder: Path, source: str, dtype: str) -> PreTrainedModel:
    try:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{source}: no causal language model can be loaded ({reason})") from error


def _read_gguf(folder: Path, gguf_file: str, source: str) -> PreTrainedModel:
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{source}/{gguf_file}: reading GGUF needs {' and '.join(missing)}; "
            "pip install 'goldilocks[gguf]'"
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf_file, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{source}/{gguf_file}: not a readable GGUF model ({reason})") from error
    # The weights are dense by now, and these marks would stop the model from being cast and saved.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model
