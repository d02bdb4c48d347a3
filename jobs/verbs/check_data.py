"""What `goldilocks check --data` opens: every table, model and scorer that a configuration names. Nothing is fitted."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.auto import modeling_auto

from framework.config import Config
from framework.data.pair_tables import read_pair_rows, read_pair_table
from framework.data.paths import expand
from framework.data.tables import read_labelled
from framework.errors import UserError, one_line, short
from framework.generation.sampler import left_padded
from framework.gold import Classifier, Judge, Python
from framework.models.adapters import base_of, shapes, tokenizer_place
from framework.models.causal import context_of, refuse_type
from framework.models.encoders import reads_and_takes
from framework.models.huggingface import HfModel
from framework.models.reward_folder import is_reward_model, read_settings
from framework.models.settings import Pretrained
from framework.models.tokenizer import load_tokenizer
from framework.training.reward_fit import policy_responses

STARTS: dict[str, Any] = {
    "world": True, "policy": True, "sft": True, "instruction": True, "max_new_tokens": True,
    "label": {"max_new_tokens"}, "fit_reward": {"pairs", "encoder"},
}  # fmt: skip
FITS: dict[str, Any] = {
    "label": {"held_out", "held_out_by"}, "reward": True,
    "fit_reward": {
        "pairs": True, "batch": True, "encoder": True, "strength": True, "compare_on": True, "ensemble": {"published"},
    },
}  # fmt: skip
"""The settings that a look depends on."""
LONGEST = 64
"""Prompts, the longest by characters, whose tokens are counted."""
CLASSIFIER = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES


def opened(runs: Iterable[Config]) -> Iterator[str]:
    """A line on each place that configurations name, looked at once; a UserError for one damaged or not fitting."""
    looks: dict[Any, Any] = {
        _start: STARTS, _gold: {"gold", "golds"}, _reward_fit: FITS, _beside: {"fit_gold", "score_pairs"}
    }  # fmt: skip
    for look, sections in looks.items():
        for cfg in {cfg.model_dump_json(include=sections): cfg for cfg in runs}.values():
            yield from look(cfg)


def _start(cfg: Config) -> Iterator[str]:
    splits = [cfg.world.prompts(split) for split in ("label", "train")]
    yield f"prompts: {len(splits[0])} to label, {len(splits[1])} to train on, such as {short(splits[1][0])}"
    if isinstance(cfg.policy, Pretrained):
        yield f"policy.path: {_policy(cfg, cfg.policy, splits[0] + splits[1])}"
    if cfg.sft.steps and not (cfg.fit_reward.pairs and cfg.fit_reward.encoder):
        yield f"corpus: {len(cfg.world.corpus(cfg.seed))} texts"


def _gold(cfg: Config) -> Iterator[str]:
    for name, gold in cfg.all_golds.items():
        if isinstance(gold, Classifier):
            yield f"{name}.path: {_classifier(f'{name}.path', gold.path)}"
        else:
            gold.check() if isinstance(gold, Python | Judge) else gold.build("cpu")  # a judge is not asked
            yield f"{name}: {gold.kind}, ready"


def _reward_fit(cfg: Config) -> Iterator[str]:
    fit = cfg.fit_reward
    if cfg.reward:  # in whose place nothing is fitted
        cfg.reward.check()
        yield f"reward: {cfg.reward.kind}, ready"
        return
    if fit.pairs:
        found = read_pair_table(fit.pairs, cfg.label.held_out, cfg.label.held_out_by)[1]
        yield f"fit_reward.pairs: {', '.join(f'{name} {count:g}' for name, count in found.items())}"
        if found["pairs"] - found["held_out"] < fit.batch:
            raise UserError(f"{fit.pairs.path}: fewer pairs to fit to than fit_reward.batch={fit.batch}: lower it")
    if fit.encoder:
        reads_and_takes(fit.encoder)  # refuses what can be none
        yield f"fit_reward.encoder: {_model('fit_reward.encoder', fit.encoder)}"
    for place in getattr(fit.ensemble, "published", ()):
        yield f"fit_reward.ensemble.published: {_classifier('fit_reward.ensemble.published', place)}"
    if fit.strength:
        yield f"fit_reward.strength.model: {_reward('fit_reward.strength.model', fit.strength.model)}"
    if fit.compare_on:
        yield f"fit_reward.compare_on: {len(policy_responses(fit.compare_on)[0])} responses"


def _beside(cfg: Config) -> Iterator[str]:
    if cfg.fit_gold and cfg.fit_gold.source:
        labels = read_labelled(cfg.fit_gold.source)[1]
        yield f"fit_gold.source: {len(labels)} texts, {sum(labels)} of them labelled 1"
    if cfg.score_pairs:
        yield f"score_pairs.source: {len(read_pair_rows(cfg.score_pairs.source))} pairs"
        if cfg.score_pairs.model is not None:
            yield f"score_pairs.model: {_reward('score_pairs.model', cfg.score_pairs.model)}"


def _policy(cfg: Config, policy: Pretrained, prompts: list[str]) -> str:
    """What the policy is; its longest prompts go through tokenizer and template as they will when it samples."""
    if policy.gguf_file and not Path(expand(policy.path), policy.gguf_file).is_file():
        raise UserError(f"policy.path={policy.path} has no file {policy.gguf_file}: mend policy.gguf_file")
    base = None if policy.gguf_file else base_of(policy.path, f"policy.path={policy.path}")
    refuse_type(base or policy.path, f"policy.path={policy.path}")
    found = _model("policy.path", policy.path, AutoModelForCausalLM, has_weights=not policy.gguf_file)
    tokenizer = load_tokenizer(tokenizer_place(policy.path, base) if base else policy.path)
    context = context_of(_config("policy.path", base or policy.path))
    most = max(cfg.max_new_tokens, cfg.label.max_new_tokens or 0)
    ids, _ = left_padded(tokenizer, sorted(prompts, key=len)[-LONGEST:], cfg.instruction, most, context)
    template = "has" if tokenizer.chat_template else "no"
    return f"{found}, {template} chat template; the longest prompts have {ids.shape[1]} tokens, answers up to {most}"


def _model(field: str, place: str, loader: Any = None, has_weights: bool = True, is_base: bool = False) -> str:
    """What the Hugging Face model of a folder or hub id is; the weights of a folder are looked at whole.

    `loader` is the class of transformers that a run loads it by; an adapter may hold what its base has not.
    """
    if has_weights and (base := base_of(place, f"{field}={place}")):
        shapes(place, f"{field}={place}")  # refuses weights that are not there
        return f"a LoRA adapter of {base}: {_model(field, base, loader, is_base=True)}"
    config = _config(field, place)
    if loader is AutoModelForSequenceClassification and config.model_type not in CLASSIFIER:
        what = f"transformers has no sequence classification model of type {config.model_type!r}"
        raise UserError(f"{field}={place}: {what}: name another")
    folder = Path(expand(place))
    if not folder.is_dir():
        return f"{config.model_type}, on the hub"
    load_tokenizer(place, needs_end=False)
    if not has_weights:
        return config.model_type
    count = _whole(field, place, folder)
    if loader and not is_base:
        # On the device that holds nothing: names are compared, and no weight is read.
        _, told = loader.from_pretrained(
            folder, device_map="meta", output_loading_info=True, use_safetensors=True, trust_remote_code=False
        )
        if missing := sorted(told["missing_keys"]):
            what = f"weights are missing ({', '.join(missing[:3])})"
            raise UserError(f"{field}={place}: {what}: name a model that has them")
    return f"{config.model_type}, {count} weights"


def _classifier(field: str, place: str) -> str:
    return _model(field, place, AutoModelForSequenceClassification)


def _config(field: str, place: str) -> HfModel:
    try:
        return AutoConfig.from_pretrained(expand(place), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{field}={place}: no model is there ({one_line(error)[:200]})") from error


def _whole(field: str, place: str, folder: Path) -> int:
    """How many weights the safetensors files of a folder hold; their headers say how long each file must be."""
    count, files = 0, sorted(folder.glob("model*.safetensors"))
    names = {path.name for path in files}
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{field}={place}: {index.name} is damaged ({one_line(error)}): fetch it again") from error
    if not names:
        raise UserError(f"{field}={place} holds no model.safetensors: convert the weights, or name another model")
    for name in sorted(names):
        try:
            with safe_open(folder / name, framework="pt") as file:
                count += len(file.keys())
        except (OSError, SafetensorError) as error:
            damage = f"{name} is missing or damaged ({one_line(error)})"
            raise UserError(f"{field}={place}: {damage}: fetch it again") from error
    return count


def _reward(field: str, place: str) -> str:
    """What the reward model of ours, or a published one, at a place is."""
    if not is_reward_model(place):
        return _classifier(field, place)
    settings, tensors = read_settings(Path(expand(place)))
    return f"a reward model of {len(settings['members'])} members, {len(tensors['centre'])} heads"
