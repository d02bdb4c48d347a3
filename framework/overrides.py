"""Configurations before they are validated: YAML files, and dotted overrides (`train.kl.kind=budget train.kl.budget=8`)."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from framework.errors import UserError, one_line


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; empty where the file is.

    Raises:
        UserError: it is not YAML, or no mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path} must hold a mapping of keys, not a {type(tree).__name__}")
    return tree


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """`["train.kl.kind=budget", "seed=10"]` as a mapping; values are read as YAML."""
    parsed: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UserError(f"{word!r} is not an override: write key=value, for example train.kl.coef=0.1")
        try:
            parsed[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"override {word!r}: the value is not valid YAML") from error
    return parsed


def apply_overrides(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a raw configuration with dotted keys set.

    A key that ends in `.kind` replaces its whole node: settings of another kind do not linger.
    Kinds are therefore applied before the other keys, and a section before what is in it, whatever the
    order they were written in.
    """
    out: dict[str, Any] = copy.deepcopy(dict(tree))
    for key in sorted(overrides, key=lambda k: (not k.endswith(".kind"), k.count("."))):
        *parents, leaf = key.split(".")
        node = out
        for depth, name in enumerate(parents):
            child = node.get(name)
            if child is None:
                child = {}
            if not name or not leaf:
                raise UserError(f"override {key!r}: a part of the key is empty")
            if not isinstance(child, Mapping):
                raise UserError(f"override {key!r}: {'.'.join(parents[: depth + 1])} is a value, not a section")
            node[name] = dict(child)
            node = node[name]
        if leaf == "kind" and parents:
            node.clear()
        node[leaf] = copy.deepcopy(overrides[key])
    return out
