"""Mistakes in a configuration, told in one line."""

import difflib
import typing
from collections.abc import Collection, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from framework.errors import short

RENAMED = {"gold.on": "gold.reads"}
"""Keys that had another name, and what they are called now."""


def explain(errors: Sequence[ErrorDetails], root: type[BaseModel], where: str, overrides: Collection[str] = ()) -> str:
    """The first of pydantic's errors in the tree `root` as one line: where it stands, the key as a user writes it, and the
    nearest one there is. What is not of the `overrides` stands in `where`."""
    # A misspelt key is also a missing one: say the former.
    first = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    key, _ = _walk([str(part) for part in first["loc"]], root)
    if any(f"{key}.".startswith(f"{said}.") or f"{said}.".startswith(f"{key}.") for said in overrides):
        where = "command line"
    moved = [whole for error in errors if (whole := _moved(error, root))]
    if _moved(first, root):
        stand = "stands" if len(moved) == 1 else "stand"
        written = ", ".join(f"train.{whole}" for whole in moved)
        return f"{where}: {', '.join(map(repr, moved))} {stand} in the section of the method: write {written}"
    return f"{where}: {_explain(first, root)}"


def _explain(error: ErrorDetails, root: type[BaseModel]) -> str:
    path = [str(part) for part in error["loc"]]
    key, _ = _walk(path, root)
    match error["type"]:
        case "extra_forbidden":
            return _unknown(path, key, root)
        case "union_tag_invalid":
            tag, tags = error["ctx"]["tag"], error["ctx"]["expected_tags"].replace("'", "").split(", ")
            return f"{key}.kind={tag!r} is not known; {_nearest(tag, tags, 'known')}"
        case "no_effect":
            where = ".".join(filter(None, (key, error["ctx"]["key"])))
            return f"{where}={short(error['ctx']['value'])}: {error['msg']}"
        case "missing":
            return f"{key} is required"
        case "value_error":
            message = error["msg"].removeprefix("Value error, ")
            return f"{key}: {message}" if path and not message.startswith(f"{key}.") else message
        case _:
            return f"{key}={short(error['input'])}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _moved(error: ErrorDetails, root: type[BaseModel]) -> str | None:
    """The whole of a key that once stood at the root, and now in `train`."""
    key = error["loc"][0] if len(error["loc"]) == 1 and error["type"] == "extra_forbidden" else None
    return ".".join([str(key), *_first_key(error["input"])]) if key in _keys(["train"], root) else None


def _unknown(path: list[str], key: str, root: type[BaseModel]) -> str:
    """A key that does not stand where it was written: where it does stand, or the nearest one that stands here."""
    if key in RENAMED:
        return f"{key!r} is called {RENAMED[key]!r} now: rename it"
    if others := _kinds_with(path, root):
        section = key.rpartition(".")[0]
        return f"unknown key {key!r} under {section}.kind={path[-2]}: set {section}.kind={' or '.join(others)}"
    known = _keys(path[:-1], root)
    # Most keys of a run stand in `train`.
    known += [f"train.{name}" for name in _keys(["train"], root)] if len(path) == 1 else []
    return f"unknown key {key!r}; {_nearest(path[-1], known, 'known here')}"


def _first_key(value: Any) -> list[str]:
    """The keys that lead down to the first value of a section; none for a value."""
    if not isinstance(value, dict) or not value:
        return []
    name, inner = next(iter(value.items()))
    return [str(name), *_first_key(inner)]


def _nearest(word: str, known: list[str], title: str) -> str:
    """The key, by its last part, that is most like the word; all of them where none is."""
    by_leaf = {key.rpartition(".")[2]: key for key in reversed(known)}
    near = difflib.get_close_matches(word, by_leaf, n=1, cutoff=0.5)
    return f"did you mean {by_leaf[near[0]]!r}?" if near else f"{title}: {', '.join(known)}"


def _kinds_with(path: list[str], root: type[BaseModel]) -> list[str]:
    """The other kinds of the section at `path[:-1]` that have the key at its end."""
    kinds = {m.model_fields["kind"].default: m for m in _walk(path[:-2], root)[1] if "kind" in m.model_fields}
    is_tag = len(path) > 2 and path[-2] in kinds
    return [kind for kind, member in kinds.items() if is_tag and path[-1] in member.model_fields]


def _keys(path: list[str], root: type[BaseModel]) -> list[str]:
    """The keys that are known in the section at `path`."""
    return sorted({name for model in _walk(path, root)[1] for name in model.model_fields})


def _walk(path: list[str], root: type[BaseModel]) -> tuple[str, list[type[BaseModel]]]:
    """A path as the user writes it, pydantic's own tag of a union member left out; and the components that can stand there."""
    shown: list[str] = []
    models: list[type[BaseModel]] = [root]
    for part in path:
        tagged = [m for m in models if "kind" in m.model_fields and m.model_fields["kind"].default == part]
        # Several members: this part chooses one. A setting may have the name of its kind, as budget has.
        if tagged and len(models) > 1:
            models = tagged
            continue
        shown.append(part)
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        if fields:  # else a place in a list of components, or a name in a mapping of them
            models = [model for field in fields for model in _models_of(field.annotation)]
    return ".".join(shown), models


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    """The component classes inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_of(argument)]
