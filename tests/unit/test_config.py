"""The configuration: what it refuses, in which words, and what its defaults mean."""

import re

import pytest
import yaml
from pydantic import BaseModel, create_model

from framework.aggregation import Mean
from framework.artifacts import fingerprint
from framework.config import Config, load_config, parse_config
from framework.errors import UserError
from framework.methods import Online
from framework.overrides import apply_overrides, parse_overrides
from jobs.experiment.plan import plan_of
from tests.tiny import merged


def _parse(*words: str) -> Config:
    return parse_config(apply_overrides({}, parse_overrides(words)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stpes=3"], "unknown key 'stpes'; did you mean 'train.steps'?"),
        (["sede=3"], "unknown key 'sede'; did you mean 'seed'?"),
        (["train.stpes=3"], "unknown key 'train.stpes'; did you mean 'steps'?"),
        (["train.kl.coeff=1"], "unknown key 'train.kl.coeff'; did you mean 'coef'?"),
        (["train.kl.kind=budgt"], "train.kl.kind='budgt' is not known; did you mean 'budget'?"),
        (["train.kl.kind=budget", "train.kl.bugdet=3"], "unknown key 'train.kl.bugdet'; did you mean 'budget'?"),
        (["train.kl.kind=zzz"], "train.kl.kind='zzz' is not known; known: fixed, adaptive, budget"),
        (["train.update.optimizer.l=1"], "unknown key 'train.update.optimizer.l'; did you mean 'lr'?"),
        (["train.update.reduction.kind=token_maen"], "did you mean 'token_mean'?"),
        (["world.kind=text", "world.sorce.path=a"], "unknown key 'world.sorce'; did you mean 'source'?"),
        (["world.kind=text", "world.source.pth=a"], "unknown key 'world.source.pth'; did you mean 'path'?"),
        (["fit_gold.source.pth=a"], "unknown key 'fit_gold.source.pth'; did you mean 'path'?"),
        (["gold.kind=ngram"], "gold.path is required"),
        (["train.steps=abc"], "train.steps='abc': input should be a valid integer"),
        (["train.steps=0"], "train.steps=0: input should be greater than or equal to 1"),
        (["train.kl.coef=-1"], "train.kl.coef=-1: input should be"),
        (["train.kl=3"], "train.kl=3: input should be a valid dictionary"),
        (["variants={a: 3}"], "variants.a=3: input should be a valid dictionary"),
        (["variants.a/b={}"], "variants: 'a/b' must be letters"),
        (["fit_reward.ensemble.kind=fulll"], "fit_reward.ensemble.kind='fulll' is not known; did you mean 'full'?"),
        (["fit_reward.ensemble.heads=3"], "unknown key 'fit_reward.ensemble.heads'"),
        (["fit_reward.ensemble.kind=lora", "fit_reward.odin={}"], "fit_reward: odin needs heads"),
        (["label.held_out=1"], "label.held_out=1: input should be less than 1"),
        (["seeds=[0, -1]"], "seeds holds -1: a seed must be 0 or more"),
        (["seeds=[3, 0, 3]"], "seeds holds 3 twice"),
        (["seeds=[]"], "seeds=[]: tuple should have at least 1 item"),
        (["instruction=hello"], "instruction must contain {prompt}"),
        (["gold.kind=ngram", "gold.path=x", "gold.on=response"], "'gold.on' is called 'gold.reads' now: rename it"),
        (["variants.a={seed: 3}"], "variants.a: seed cannot differ between runs; give the seeds as seeds=[...]"),
        (["conditions.a={seeds: [3]}"], "conditions.a: seeds cannot differ"),
        (["variants.a={sweep.limit: 3}"], "variants.a: sweep.limit cannot differ"),
        (["sweep.grid={seed: [1, 2]}"], "seed cannot be swept; give the seeds as seeds=[...]"),
        (["train.kl={kind: fixed}", "train.kl.kind=budget"], "'train.kl' and 'train.kl.kind' contradict each other"),
        (["train.kl.kind=budget", "train.kl={coef: 1}"], "'train.kl' and 'train.kl.kind' contradict each other"),
        (["train={kl: {kind: fixed}}", "train.kl.kind=budget"], "'train' and 'train.kl.kind' contradict each other"),
        (["variants.a={train.kl: {kind: fixed}, train.kl.kind: budget}"], "contradict each other"),
        (["aggregation.kind=worst_case"], "does nothing: fit_reward.ensemble.kind=single has one head"),
        (["aggregation.kind=entropic", "fit_reward.ensemble.kind=averaged"], "aggregation.kind=entropic does nothing"),
        (
            ["variants={a: {}, b: {aggregation.kind: worst_case}}"],
            "variants.b: aggregation.kind=worst_case does nothing",
        ),
        (["policy.heads=3"], "policy.hidden=128 does not divide into policy.heads=3 of an even size"),
        (["policy.hidden=4", "policy.heads=4"], "does not divide into policy.heads=4 of an even size"),
        (["max_new_tokens=62"], "with max_new_tokens=62 that is over the model's context of 64"),
        (["label.max_new_tokens=99"], "with max_new_tokens=99 that is over the model's context of 64"),
        (["sft.optimizer.betas=[0.9, 1.0]"], "sft.optimizer.betas.1=1.0: input should be less than 1"),
        (["train.update.optimizer.eps=1e300"], "train.update.optimizer.eps='1e300': input should be a finite number"),
        (["fit_reward.ensemble={kind: averaged, lr_factors: [-1]}"], "fit_reward.ensemble.lr_factors.0=-1: input"),
        (["train.objective.clip_high=1"], "train.objective.clip_high=1: input should be less than 1"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(words, message):
    with pytest.raises(UserError) as raised:
        plan_of(_parse(*words))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (
            ["train.prompts_per_step=5", "train.samples_per_prompt=3", "train.update.minibatches=4"],
            ["5 x 3 = 15", "train.update.minibatches=4"],
        ),
        (
            ["train.prompts_per_step=4", "train.samples_per_prompt=2", "train.update.micro_batch=3"],
            ["8 rows", "train.update.micro_batch=3"],
        ),
        (
            ["train.advantage.kind=leave_one_out", "train.samples_per_prompt=1"],
            ["leave_one_out", "train.samples_per_prompt >= 2"],
        ),
        (["label.pairs=34", "fit_reward.batch=32"], ["label.pairs=34", "3 held out", "fit_reward.batch=32"]),
        (["train.objective.kind=reinforce", "train.update.epochs=2"], ["on-policy", "2 optimiser steps"]),
        (["train.kl.kind=budget", "train.kl.gain=1e-15"], ["train.kl.gain=1e-15: over the 10240 sequences"]),
        (["train.stop_at_gold_turn={}", "train.gold_at=[0, 50, 100, 150]"], ["this run makes 4, too few"]),
        (["train.stop_at_gold_turn={}", "train.steps=19"], ["this run makes 19, too few for two looks"]),
        (["train.stop_at_gold_turn={}", "train.prompts_per_step=1"], ["set train.prompts_per_step >= 2"]),
    ],
)
def test_impossible_arithmetic_is_spelt_out(words, numbers):
    with pytest.raises(UserError) as raised:
        _parse(*words)
    for number in numbers:
        assert number in str(raised.value)


def test_the_smallest_possible_arithmetic_is_accepted():
    assert _parse("label.pairs=35", "fit_reward.batch=31").label.pairs == 35
    assert _parse("train.update.minibatches=4", "train.update.micro_batch=16").train.rollouts == 64


def test_a_section_without_kind_is_of_the_default_kind():
    short, whole = {"coef": 0.25}, {"kind": "fixed", "coef": 0.25}
    assert parse_config({"train": {"kl": short}}) == parse_config({"train": {"kind": "online", "kl": whole}})


def test_a_section_in_part_keeps_the_rest_of_our_default():
    changed, default = _parse("sft.optimizer.lr=0.5").sft, Config().sft
    assert changed.optimizer.lr == 0.5
    assert changed.optimizer.warmup_steps == default.optimizer.warmup_steps > 0
    assert changed.model_copy(update={"optimizer": default.optimizer}) == default


def test_a_setting_of_another_kind_is_refused():
    with pytest.raises(UserError, match=r"unknown key 'train\.kl\.coef'"):
        _parse("train.kl.coef=0.5", "train.kl.kind=budget")


def test_yaml_and_back():
    cfg = _parse("train.kl.kind=adaptive", "aggregation.kind=uncertainty", "variants={a: {train.kl.kind: budget}}")
    assert parse_config(yaml.safe_load(cfg.to_yaml())) == cfg


@pytest.mark.parametrize(
    "word", ["backend=inline", "cluster=one_gpu", "seeds=[1, 2]", "variants={a: {train.steps: 3}}"]
)
def test_the_fingerprint_ignores_what_changes_no_number(word):
    assert _parse(word) != Config()
    assert _parse(word).fingerprint() == Config().fingerprint()


@pytest.mark.parametrize(
    "word", ["seed=1", "train.kl.coef=0.123", "train.update.optimizer.lr=0.5", "train.gold_every=2"]
)
def test_the_fingerprint_sees_what_changes_a_number(word):
    assert _parse(word).fingerprint() != Config().fingerprint()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not valid YAML"),
        ("- 1", "must hold a mapping of keys, not a list"),
        ("1: 2", "keys should be strings"),
        ("false", "must hold a mapping of keys, not a bool"),
        ("[]", "must hold a mapping of keys, not a list"),
        ("0", "must hold a mapping of keys, not a int"),
        ("''", "must hold a mapping of keys, not a str"),
        ("steps: 4\nseed: 1\nsteps: 9", "line 3, column 1: the key 'steps' is written twice"),
        ("train: {kl: {coef: 1,\n coef: 2}}", "line 2, column 2: the key 'coef' is written twice"),
        ("on: 1\n'on': 2", "line 2, column 1: the key 'on' is written twice"),
        ("a: &a {b: *a}", "line 1, column 4: it holds itself"),
        ("a: &a [*a]", "line 1, column 4: it holds itself"),
        ("[" * 5000, "it is nested too deep"),
        ("a: " + "{a: " * 3000, "it is nested too deep"),
        ("a: 2024-13-45", "month must be in 1..12"),
        ("a: " + "1" * 5000, "Exceeds the limit"),
        ("a: !!timestamp x", "is not valid YAML"),
        ("gold: {kind: ngram, path: x, on: response}", "'gold.on' is called 'gold.reads' now: rename it"),
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


@pytest.mark.parametrize("make", ["folder", "name too long", "loop"])
def test_what_cannot_be_read_is_named(tmp_path, make):
    path = tmp_path / ("x" * 300 if make == "name too long" else "c.yaml")
    if make == "folder":
        path.mkdir()
    if make == "loop":
        path.symlink_to(path)
    with pytest.raises(UserError, match=r"cannot be read: .+; give the path of a YAML file"):
        load_config(path)


def test_a_word_that_yaml_takes_for_a_truth_value_may_be_a_key(tmp_path):
    (tmp_path / "c.yaml").write_text("variants: {on: {}, yes: {train.steps: 3}, No: {}}\nbaseline: 'on'")
    assert list(load_config(tmp_path / "c.yaml").variants) == ["on", "yes", "No"]


def test_keys_that_are_merged_may_be_set_again(tmp_path):
    (tmp_path / "c.yaml").write_text("variants:\n  a: &a {train.steps: 3, seed_: 1}\n  b: {<<: *a, train.steps: 4}")
    assert load_config(tmp_path / "c.yaml").variants["b"] == {"train.steps": 4, "seed_": 1}


def test_an_empty_file_is_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    assert load_config(tmp_path / "empty.yaml") == Config()


@pytest.mark.parametrize("value", [".inf", ".nan"])
def test_a_number_must_be_finite(value):
    with pytest.raises(UserError, match="finite"):
        load_config(None, parse_overrides([f"train.update.optimizer.lr={value}"]))


def _numbers(model, path=""):
    """Dotted keys of numbers below a section's default, and whether a truth value is one of their values."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name, field.default)
        if isinstance(value, BaseModel):
            yield from _numbers(value, f"{path}{name}.")
        elif isinstance(value, int | float):
            yield f"{path}{name}", isinstance(value, bool)


NUMBERS = [key for key, is_truth in _numbers(Config()) if not is_truth]


@pytest.mark.parametrize("value", ["true", "false", "1e300", "-1e300", "1e-300", ".nan", ".inf", "[]", "{}", "''"])
@pytest.mark.parametrize("key", NUMBERS)
def test_no_number_is_taken_that_is_none_or_has_no_effect(key, value):
    words = [f"{key}={value}"]
    try:
        cfg = _parse(*words)
    except UserError as error:
        assert f"{key}=" in str(error)
        assert "\n" not in str(error)
    else:
        raise AssertionError(f"{words[0]} was taken: {cfg.to_yaml()}")


@pytest.mark.parametrize(
    "word", ["seeds=[true]", "train.gold_at=[0, true]", "gold={kind: classifier, path: x, label: true}"]
)
def test_a_truth_value_in_a_list_is_no_number_either(word):
    with pytest.raises(UserError, match="a number is wanted, not a truth value"):
        _parse(word)


def test_a_section_may_repeat_its_kind():
    assert _parse("train.kl={kind: budget, budget: 3}", "train.kl.kind=budget").train.kl.budget == 3


# Keys of the online loop once stood at the root

MOVED = {
    "steps": 3, "prompts_per_step": 4, "samples_per_prompt": 2, "transforms": [], "shaping.kind": "kl_in_loss",
    "kl.budget": 8, "advantage.kind": "gae", "objective.clip": 0.2, "update.optimizer.lr": 0.1, "gold_every": 2,
    "gold_at": [0], "stop_at_gold_turn.measurements": 2, "exact_kl_every": 1, "exact_kl_rows": 1, "save_every": 1,
    "keep_checkpoints": 1,
}  # fmt: skip


@pytest.mark.parametrize("key", MOVED)
def test_an_old_root_key_is_refused_with_its_new_name(key):
    with pytest.raises(UserError) as raised:
        parse_config(apply_overrides({}, {key: MOVED[key]}))
    assert f"'{key}' stands in the section of the method: write train.{key}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_several_old_keys_are_named_together_and_where_they_were_written(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text("steps: 3\nkl: {budget: 8}\n")
    for overrides, where in (({}, path), ({"kl.budget": 4}, path), ({"steps": 4}, "command line")):
        with pytest.raises(UserError) as raised:
            load_config(path, overrides)
        assert str(raised.value).startswith(f"{where}: 'steps', 'kl.budget' stand in the section")
        assert str(raised.value).endswith("write train.steps, train.kl.budget")
    with pytest.raises(UserError, match="command line: unknown key 'sedd'"):
        load_config(None, {"sedd": 1})


def test_every_key_of_the_online_loop_is_among_them():
    assert {key.partition(".")[0] for key in MOVED} == set(Online.model_fields) - {"kind", "missing_end_penalty"}


# What a fingerprint is taken of


def _with_new_key(section: str) -> type[Config]:
    """The configuration with one more key, `brand_new`, in a section."""
    before = Config.model_fields[section].default
    grown = create_model(f"Grown{section}", __base__=type(before), brand_new=(int, 7))
    default = grown.model_validate(before.model_dump(exclude_unset=True))
    return create_model("GrownConfig", __base__=Config, **{section: (grown, default)})


@pytest.mark.parametrize("tree", [{}, {"seed": 3, "sft": {"steps": 5}, "train": {"kl": {"coef": 0.5}}}])
@pytest.mark.parametrize("section", ["sft", "label", "fit_reward", "train"])
def test_a_new_default_key_changes_no_fingerprint_and_a_set_one_does(section, tree):
    plain = parse_config(tree)
    grown = _with_new_key(section)
    same, other = (
        grown.model_validate(merged(plain.model_dump(mode="json"), {section: change}))
        for change in ({}, {"brand_new": 8})
    )
    assert getattr(same, section).brand_new == 7
    assert same.fingerprint() == plain.fingerprint() != other.fingerprint()
    assert fingerprint(same.chosen("seed", section), {}) == fingerprint(plain.chosen("seed", section), {})
    assert fingerprint(other.chosen(section), {}) != fingerprint(plain.chosen(section), {})
    # A run is what its method covers: a stage before it counts by the contents of what it made.
    assert same.run_fingerprint() == plain.run_fingerprint()
    assert (other.run_fingerprint() != plain.run_fingerprint()) == (section == "train")


def test_a_new_section_with_a_default_changes_no_fingerprint():
    grown = create_model("GrownConfig", __base__=Config, brand_new=(Mean, Mean()))
    assert grown().fingerprint() == Config().fingerprint()
    assert grown().run_fingerprint() == Config().run_fingerprint()
    assert grown.model_validate({"brand_new": {"kind": "mean"}}).fingerprint() == Config().fingerprint()


def test_a_default_spelled_out_is_the_default():
    tree = Config().model_dump(mode="json")
    assert parse_config(tree).fingerprint() == Config().fingerprint()
    assert parse_config(tree).run_fingerprint() == Config().run_fingerprint()


@pytest.mark.parametrize("covered", Online.covers)
def test_a_run_is_another_where_what_its_method_covers_is_another(covered):
    changes = {
        "world": {"max_words": 20}, "gold": {"kind": "ngram", "path": "gold"}, "max_new_tokens": 5, "temperature": 0.5,
        "golds": {"again": {"kind": "rule"}},
        "instruction": "Go on: {prompt}", "aggregation": {"kind": "worst_case"}, "precision": "bfloat16",
        "scorer_rows": 5,
    }  # fmt: skip
    assert set(changes) == set(Online.covers)
    heads = {"fit_reward": {"ensemble": {"kind": "shared_encoder"}}}
    assert parse_config(heads).run_fingerprint() == Config().run_fingerprint()
    assert parse_config(heads | {covered: changes[covered]}).run_fingerprint() != Config().run_fingerprint()


@pytest.mark.parametrize("word", ["sft.steps=3", "label.noise=0.1", "fit_reward.epochs=9", "backend=inline"])
def test_a_run_is_the_same_whatever_made_what_it_starts_from(word):
    """The contents of its stages are the rest of its identity."""
    assert _parse(word).run_fingerprint() == Config().run_fingerprint()
