"""Configurations before they are validated: YAML files, and dotted overrides (`train.kl.kind=budget train.kl.budget=8`)."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from framework.errors import UserError, one_line, short


class _Loader(yaml.SafeLoader):
    """YAML 1.1, except that a key is never a truth value (`on: x`) and not written twice, and nothing holds itself."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.deep_construct = True  # PyYAML then refuses what holds itself

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:bool":
                key.tag = "tag:yaml.org,2002:str"
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    what = f"the key {key.value!r} is written twice: leave one out"
                    raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """What a YAML text holds. Raises ValueError: why it cannot be read, in one line."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = "it holds itself" if "recursive" in str(error.problem) else error.problem
        raise ValueError(f"{where}{what}") from error
    except (yaml.YAMLError, AttributeError, LookupError, TypeError) as error:  # PyYAML's, of a tag that does not fit
        raise ValueError(one_line(error)) from error


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds, in UTF-8 whatever the locale; empty where the file is. Raises UserError."""
    try:
        tree = read_yaml(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path} is not valid YAML: {one_line(error)}") from error
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: give the path of a YAML file") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; give the path of a YAML file") from error
    if tree is not None and not isinstance(tree, dict):
        raise UserError(f"{path} must hold a mapping of keys, not a {type(tree).__name__}")
    return tree or {}


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """`["train.kl.kind=budget", "seed=10"]` as a mapping; values are read as YAML."""
    parsed: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UserError(f"{word!r} is not an override: write key=value, for example train.kl.coef=0.1")
        try:
            parsed[key] = read_yaml(value)
        except ValueError as error:
            raise UserError(f"override {short(word)}: the value is not valid YAML: {error}") from error
    return parsed


def apply_overrides(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a raw configuration with dotted keys set.

    A key that ends in `.kind` replaces its whole node: settings of another kind do not linger. Kinds are therefore
    applied before the other keys, and a section before what is in it, whatever the order they were written in.

    Raises:
        UserError: a key that leads nowhere, or a kind beside a whole section that has it not.
    """
    for section, value in overrides.items():
        for key in overrides:
            below = key.removeprefix(f"{section}.")
            if key.endswith(".kind") and below != key and _at(value, below) != overrides[key]:
                what = f"overrides {section!r} and {key!r} contradict each other"
                raise UserError(f"{what}: write the kind in {section}, once")
    out: dict[str, Any] = copy.deepcopy(dict(tree))
    for key in sorted(overrides, key=lambda k: (not k.endswith(".kind"), k.count("."))):
        *parents, leaf = key.split(".")
        node = out
        for depth, name in enumerate(parents):
            child = {} if node.get(name) is None else node[name]
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


def _at(tree: Any, key: str) -> Any:
    """What stands at a dotted key; None where nothing does."""
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree
