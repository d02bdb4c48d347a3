"""The configuration: what it refuses, in which words, and what its defaults mean."""

import re

import pytest
import yaml

from framework.config import Config, load_config, parse_config
from framework.ensembles import Full, SharedEncoder
from framework.errors import UserError
from framework.overrides import apply_overrides, parse_overrides


def _parse(*words: str) -> Config:
    return parse_config(apply_overrides({}, parse_overrides(words)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stpes=3"], "unknown key 'stpes'; did you mean 'steps'?"),
        (["kl.coeff=1"], "unknown key 'kl.coeff'; did you mean 'coef'?"),
        (["kl.kind=budgt"], "kl.kind='budgt' is not known; did you mean 'budget'?"),
        (["kl.kind=budget", "kl.bugdet=3"], "unknown key 'kl.bugdet'; did you mean 'budget'?"),
        (["kl.kind=zzz"], "kl.kind='zzz' is not known; known: fixed, adaptive, budget"),
        (["update.optimizer.l=1"], "unknown key 'update.optimizer.l'; did you mean 'lr'?"),
        (["update.reduction.kind=token_maen"], "did you mean 'token_mean'?"),
        (["world.kind=text", "world.sorce.path=a"], "unknown key 'world.sorce'; did you mean 'source'?"),
        (
            ["world.kind=text", "world.source.pth=a"],
            "unknown key 'world.source.pth'; did you mean 'path'?",
        ),
        (["fit_gold.source.pth=a"], "unknown key 'fit_gold.source.pth'; did you mean 'path'?"),
        (["gold.kind=ngram"], "gold.path is required"),
        (["steps=abc"], "steps='abc': input should be a valid integer"),
        (["steps=0"], "steps=0: input should be greater than or equal to 1"),
        (["kl.coef=-1"], "kl.coef=-1: input should be"),
        (["kl=3"], "kl=3: input should be a valid dictionary"),
        (["variants={a: 3}"], "variants.a=3: input should be a valid dictionary"),
        (["variants.a/b={}"], "variants: 'a/b' must be letters"),
        (
            ["fit_reward.ensemble.kind=fulll"],
            "fit_reward.ensemble.kind='fulll' is not known; did you mean 'full'?",
        ),
        (["fit_reward.ensemble.heads=3"], "unknown key 'fit_reward.ensemble.heads'"),
        (["fit_reward.ensemble.kind=lora", "fit_reward.odin={}"], "fit_reward: odin needs heads"),
        (["label.held_out=1"], "label.held_out=1: input should be less than 1"),
        (["seeds=[0, -1]"], "seeds holds -1: a seed must be 0 or more"),
        (["seeds=[3, 0, 3]"], "seeds holds 3 twice"),
        (["seeds=[]"], "seeds=[]: tuple should have at least 1 item"),
        (["instruction=hello"], "instruction must contain {prompt}"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(words, message):
    with pytest.raises(UserError) as raised:
        _parse(*words)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (
            ["prompts_per_step=5", "samples_per_prompt=3", "update.minibatches=4"],
            ["5 x 3 = 15", "minibatches=4"],
        ),
        (["prompts_per_step=4", "samples_per_prompt=2", "update.micro_batch=3"], ["8 rows", "micro_batch=3"]),
        (
            ["advantage.kind=leave_one_out", "samples_per_prompt=1"],
            ["leave_one_out", "samples_per_prompt >= 2"],
        ),
        (["label.pairs=34", "fit_reward.batch=32"], ["label.pairs=34", "3 held out", "fit_reward.batch=32"]),
        (["objective.kind=reinforce", "update.epochs=2"], ["on-policy", "2 optimiser steps"]),
    ],
)
def test_impossible_arithmetic_is_spelt_out(words, numbers):
    with pytest.raises(UserError) as raised:
        _parse(*words)
    for number in numbers:
        assert number in str(raised.value)


def test_the_smallest_possible_arithmetic_is_accepted():
    assert _parse("label.pairs=35", "fit_reward.batch=31").label.pairs == 35
    assert _parse("update.minibatches=4", "update.micro_batch=16").rollouts == 64


def test_a_section_without_kind_is_of_the_default_kind():
    assert parse_config({"kl": {"coef": 0.25}}).kl == parse_config({"kl": {"kind": "fixed", "coef": 0.25}}).kl


def test_a_section_in_part_keeps_the_rest_of_our_default():
    changed, default = _parse("sft.optimizer.lr=0.5").sft, Config().sft
    assert changed.optimizer.lr == 0.5
    assert changed.optimizer.warmup_steps == default.optimizer.warmup_steps > 0
    assert changed.model_copy(update={"optimizer": default.optimizer}) == default


def test_a_setting_of_another_kind_is_refused():
    with pytest.raises(UserError, match=r"unknown key 'kl\.coef'"):
        _parse("kl.coef=0.5", "kl.kind=budget")


def test_yaml_and_back():
    cfg = _parse("kl.kind=adaptive", "aggregation.kind=uncertainty", "variants={a: {kl.kind: budget}}")
    assert parse_config(yaml.safe_load(cfg.to_yaml())) == cfg


@pytest.mark.parametrize(
    "word", ["backend=inline", "cluster=one_gpu", "seeds=[1, 2]", "variants={a: {steps: 3}}"]
)
def test_the_fingerprint_ignores_what_changes_no_number(word):
    assert _parse(word) != Config()
    assert _parse(word).fingerprint() == Config().fingerprint()


@pytest.mark.parametrize("word", ["seed=1", "kl.coef=0.123", "update.optimizer.lr=0.5", "gold_every=2"])
def test_the_fingerprint_sees_what_changes_a_number(word):
    assert _parse(word).fingerprint() != Config().fingerprint()


def test_a_variant_is_the_configuration_with_its_overrides_and_seed():
    cfg = _parse("variants={a: {kl.kind: budget, fit_reward.batch: 32}}", "steps=7")
    variant = cfg.variant("a", seed=5)
    assert (variant.kl.kind, variant.fit_reward.batch, variant.seed, variant.steps) == ("budget", 32, 5, 7)


def test_a_variant_may_name_another_ensemble_with_its_own_settings():
    word = "variants={a: {fit_reward.ensemble.kind: shared_encoder, fit_reward.ensemble.heads: 3}, b: {}}"
    cfg = _parse(word, "fit_reward.ensemble.kind=full")
    assert cfg.variant("a", seed=0).fit_reward.ensemble == SharedEncoder(heads=3)
    assert cfg.variant("b", seed=0).fit_reward.ensemble == Full()


def test_a_mistake_in_a_variant_names_the_variant():
    with pytest.raises(UserError, match=r"variants\.a: unknown key 'kl\.bugdet'"):
        _parse("variants={a: {kl.kind: budget, kl.bugdet: 3}}").variant("a", seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not valid YAML"),
        ("- 1", "must hold a mapping of keys, not a list"),
        ("1: 2", "keys should be strings"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, text, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        load_config(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_missing_or_binary_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nix\.yaml does not exist"):
        load_config(tmp_path / "nix.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary\.yaml is not valid YAML"):
        load_config(tmp_path / "binary.yaml")


def test_an_empty_file_is_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    assert load_config(tmp_path / "empty.yaml") == Config()


@pytest.mark.parametrize("value", [".inf", ".nan"])
def test_a_number_must_be_finite(value):
    with pytest.raises(UserError, match="finite"):
        load_config(None, parse_overrides([f"update.optimizer.lr={value}"]))
