"""LoRA adapters in peft's layout, merged into the models that they were made for."""

import json
from collections.abc import Collection
from pathlib import Path

from safetensors import SafetensorError, safe_open

from framework.data.paths import expand
from framework.errors import UserError, one_line
from framework.models.huggingface import HfModel

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"


def base_of(place: str | Path, where: str) -> str | None:
    """The model that the adapter in a folder was made for; None where there is no adapter. Errors name the setting `where`."""
    path = Path(expand(str(place)), CONFIG_FILE)
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, base = config["peft_type"], config["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where}: {CONFIG_FILE} there is damaged ({error!r}); put it back") from error
    if kind != "LORA" or not isinstance(base, str):
        raise UserError(
            f"{where}: an adapter of kind {kind} for the model {base}: only LoRA that names its model is read"
        )
    return base


def tokenizer_place(place: str | Path, base: str) -> str:
    """Where an adapter's tokenizer is: beside it if it brought one, else with its model."""
    return str(place) if Path(expand(str(place)), "tokenizer_config.json").is_file() else base


def shapes(place: str | Path, where: str) -> dict[str, list[int]]:
    """Names and shapes of an adapter's weights, which nothing is unpickled for."""
    path = Path(expand(str(place)), WEIGHTS_FILE)
    if not path.is_file():
        raise UserError(f"{where}: there is an {CONFIG_FILE} and no {WEIGHTS_FILE}: save the adapter as safetensors")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except SafetensorError as error:
        raise UserError(f"{where}: {WEIGHTS_FILE} there is damaged ({error}); put it back") from error


def head_size(place: str | Path, where: str) -> int | None:
    """Labels of the classification head that an adapter brought with it; None where it brought none."""
    heads = ("score.weight", "classifier.weight")
    return next((shape[0] for name, shape in shapes(place, where).items() if name.endswith(heads)), None)


def merged(model: HfModel, place: str | Path, where: str, missing: Collection[str] = ()) -> HfModel:
    """The model with the adapter's change in its weights, and whole modules that it brought in place of its own.

    A `UserError` where it does not fit, or does not bring what the model was loaded without: `missing`.
    """
    from peft import PeftModel, get_peft_model_state_dict  # slow to import

    names = shapes(place, where)
    if absent := sorted(name for name in missing if not any(own.endswith(f".{name}") for own in names)):
        raise UserError(f"{where}: neither adapter nor model has the weights {', '.join(absent[:3])}: name a whole one")
    try:
        adapted = PeftModel.from_pretrained(model, expand(str(place)), use_safetensors=True, trust_remote_code=False)
        if odd := set(get_peft_model_state_dict(adapted)) ^ set(names):
            raise ValueError(f"{min(odd)} is only on one side")
        return adapted.merge_and_unload()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        fault = f"the adapter does not fit {model.config.name_or_path} ({one_line(error)[:300]})"
        raise UserError(f"{where}: {fault}") from error
