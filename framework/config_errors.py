"""Mistakes in a configuration, told in one line."""

import difflib
import typing
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails


def explain(error: ErrorDetails, root: type[BaseModel]) -> str:
    """One pydantic error of the tree `root` as one line: the key as a user writes it, and the nearest one there is."""
    path = [str(part) for part in error["loc"]]
    match error["type"]:
        case "extra_forbidden":
            known = _known_keys(path[:-1], root)
            near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
            return f"unknown key {_dotted(path, root)!r}; {hint}"
        case "union_tag_invalid":
            context = error.get("ctx", {})
            tags = str(context.get("expected_tags", "")).replace("'", "")
            tag = str(context.get("tag", ""))
            near = difflib.get_close_matches(tag, tags.split(", "), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {tags}"
            return f"{_dotted(path, root)}.kind={tag!r} is not known; {hint}"
        case "missing":
            return f"{_dotted(path, root)} is required"
        case "value_error":
            message = error["msg"].removeprefix("Value error, ")
            return f"{_dotted(path, root)}: {message}" if path else message
        case _:
            return f"{_dotted(path, root)}={error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _known_keys(path: list[str], root: type[BaseModel]) -> list[str]:
    """The keys that are known in the section at `path`."""
    models: list[type[BaseModel]] = [root]
    for part in path:
        if part.isdigit():  # place in a list of components
            continue
        tagged = [m for m in models if "kind" in m.model_fields and m.model_fields["kind"].default == part]
        models = tagged or [
            c for m in models if part in m.model_fields for c in _models_of(m.model_fields[part].annotation)
        ]
    return sorted({key for m in models for key in m.model_fields})


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    """The component classes inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_of(argument)]


def _dotted(path: list[str], root: type[BaseModel]) -> str:
    """A path as the user writes it: pydantic's own tag of a union member is left out."""
    shown: list[str] = []
    models: list[type[BaseModel]] = [root]
    for part in path:
        if part.isdigit():
            shown.append(part)
            continue
        # Several members: this part chooses one. A setting may have the name of its kind, as budget has.
        if len(models) > 1 and any(
            "kind" in m.model_fields and m.model_fields["kind"].default == part for m in models
        ):
            models = [m for m in models if m.model_fields["kind"].default == part]
            continue
        shown.append(part)
        models = [
            c for m in models if part in m.model_fields for c in _models_of(m.model_fields[part].annotation)
        ]
    return ".".join(shown)
