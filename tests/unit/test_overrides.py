"""Dotted overrides: how they are read, and in which order they act."""

import pytest

from framework.errors import UserError
from framework.overrides import apply_overrides, parse_overrides


def test_values_are_read_as_yaml():
    words = ["a=3", "b=0.5", "c=true", "d=text", "e=[1, 2]", "f={g: 1}", "h=null", "i='7'", "j="]
    assert parse_overrides(words) == {
        "a": 3, "b": 0.5, "c": True, "d": "text", "e": [1, 2], "f": {"g": 1}, "h": None, "i": "7", "j": None,
    }  # fmt: skip


def test_only_the_first_equals_sign_splits():
    assert parse_overrides(["path=a=b/c=d.parquet"]) == {"path": "a=b/c=d.parquet"}


def test_the_last_of_two_wins():
    assert parse_overrides(["a=1", "a=2"]) == {"a": 2}


@pytest.mark.parametrize("word", ["steps", "=3", "a=[1"])
def test_a_word_that_is_no_override_is_quoted(word):
    with pytest.raises(UserError) as raised:
        parse_overrides([word])
    assert repr(word) in str(raised.value)


def test_a_dotted_key_changes_one_leaf_of_a_copy():
    tree = {"a": {"b": 1, "c": {"d": 2}}}
    assert apply_overrides(tree, {"a.c.d": 3, "x.y": 4}) == {"a": {"b": 1, "c": {"d": 3}}, "x": {"y": 4}}
    assert tree == {"a": {"b": 1, "c": {"d": 2}}}


@pytest.mark.parametrize("order", [("kl.kind", "kl.budget"), ("kl.budget", "kl.kind")])
def test_a_kind_replaces_its_node_whatever_the_order(order):
    values = {"kl.kind": "budget", "kl.budget": 8}
    tree = {"kl": {"kind": "fixed", "coef": 0.1}}
    assert apply_overrides(tree, {key: values[key] for key in order}) == {"kl": {"kind": "budget", "budget": 8}}


@pytest.mark.parametrize("order", [("kl", "kl.coef"), ("kl.coef", "kl")])
def test_a_section_acts_before_what_is_in_it(order):
    values = {"kl": {"coef": 1}, "kl.coef": 2}
    assert apply_overrides({}, {key: values[key] for key in order}) == {"kl": {"coef": 2}}


def test_an_outer_kind_acts_before_an_inner_one():
    overrides = {"a.b.kind": "inner", "a.kind": "outer"}
    assert apply_overrides({"a": {"old": 1}}, overrides) == {"a": {"kind": "outer", "b": {"kind": "inner"}}}


@pytest.mark.parametrize("key", ["steps.a", "kl..coef", ".kind", "kl."])
def test_a_key_that_leads_nowhere_is_quoted(key):
    with pytest.raises(UserError) as raised:
        apply_overrides({"steps": 3, "kl": {}}, {key: 1})
    assert repr(key) in str(raised.value)
