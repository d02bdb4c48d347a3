"""Writes docs/configuration.md from the models that validate a configuration.

python -m tests.repository.generate_configuration
"""

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cluster.spec import ClusterSpec, shipped_specs
from framework.config import Config

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"

INTRODUCTION = """\
# Configuration

This page is generated from the code by `python -m tests.repository.generate_configuration`, and a test fails
when it is out of date. Do not edit it by hand.

A configuration is one YAML file. Every key may be left out, and an empty file is a correct tiny run. The section
`train` holds the method that makes the policy better; each stage before it has a section of its own.

- A section whose heading has a `kind` is a choice between components, and each choice has a table of its own.
  Where you name no kind, you get the one that the root table shows.
- A section may be written in part: the keys you leave out keep the defaults of this page.
- On the command line a key is dotted: `train.kl.kind=budget train.kl.budget=8`. Values are YAML. A key that
  ends in `.kind` replaces its whole section, so settings of another kind do not linger. Of a key that is given
  twice there the last one counts; in a file it is refused, with its line. A section and its kind are not given apart.
- An unknown key is refused, and the nearest known one is offered.
- `goldilocks check CONFIG.yaml --show` prints the whole tree as it will be used.
- Files are UTF-8, whatever the locale. A key such as `on` or `no` is a word, not a truth value.
- Paths, here and on the command line, may begin with `~` and name environment variables as `$NAME` or `${NAME}`; a
  relative one starts at the working folder.
- What has no effect is refused: a number too small or too large for float32, a truth value for a number, a seed in a variant,
  an aggregation other than the mean over one head.
"""

CLUSTER_INTRODUCTION = f"""\
## Layouts

The root key `cluster` names a layout: a shipped one ({", ".join(f"`{name}`" for name in shipped_specs())})
or the path of a YAML file with the keys below. Its `name` is the file's name where you give none. A role
NAME is `policy`, `reference`, `reward` or `gold`. [cluster.md](cluster.md) says how to choose the numbers.
"""


def render() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## Root\n", _table(Config, Config(), "")]
    for name, field in Config.model_fields.items():
        parts += _sections(field, field.default, name)
    parts += [CLUSTER_INTRODUCTION, _table(ClusterSpec, None, "")]
    for name, field in ClusterSpec.model_fields.items():
        parts += _sections(field, field.default, name)
    return "\n".join(parts)


def _sections(field: FieldInfo, default: object, path: str) -> Iterator[str]:
    """Heading and table of each component that may stand at `path`, and of what stands inside it."""
    annotation = field.annotation
    if typing.get_origin(annotation) is dict:  # of components by name
        annotation, path = typing.get_args(annotation)[1], f"{path}.NAME"
    for model in _models(annotation):
        kind = model.model_fields.get("kind")
        instance = default if isinstance(default, model) else None
        chosen = "" if kind is None else f".kind={kind.default}"
        yield f"### `{path}{chosen}`\n"
        summary = (model.__doc__ or "").strip().split("\n\n")[0]
        yield " ".join(summary.split()) + "\n"
        yield _table(model, instance, path)
        for name, inner in model.model_fields.items():
            inner_default = inner.default if instance is None else getattr(instance, name)
            yield from _sections(inner, inner_default, f"{path}.{name}")


def _table(model: type[BaseModel], instance: BaseModel | None, path: str) -> str:
    """Key, type, default and meaning of each field; the kind stands in the heading."""
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    prefix = f"{path}." if path else ""
    for name, field in model.model_fields.items():
        if name == "kind":
            continue
        default = field.default if instance is None else getattr(instance, name)
        cells = [f"`{prefix}{name}`", _type(field), _default(default), _meaning(field)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if len(lines) == 2:
        return "No keys of its own.\n"
    return "\n".join(lines) + "\n"


def _meaning(field: FieldInfo) -> str:
    """The string below the field, or what the section's own class says."""
    if field.description:
        return " ".join(field.description.split())
    models = _models(field.annotation)
    if len(models) == 1:
        return (models[0].__doc__ or "").strip().splitlines()[0]
    return "See the sections below." if models else ""


def _default(value: object) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        kind = getattr(value, "kind", None)
        return f"kind `{kind}`" if kind else "see its section"
    if value is None:
        return "null"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def _type(field: FieldInfo) -> str:
    """The type as a reader of YAML would say it, with its range."""
    bounds = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    limits = [
        f"{sign} {getattr(limit, name):g}"
        for limit in field.metadata
        for name, sign in bounds.items()
        if hasattr(limit, name)
    ]
    return ", ".join([_spelled(field.annotation), *limits])


def _spelled(annotation: Any) -> str:
    names = {int: "integer", float: "number", str: "text", bool: "true or false", types.NoneType: "null", Any: "any"}
    if annotation in names:
        return names[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple:
        count = "" if arguments[-1] is ... else f"{len(arguments)} "
        return f"list of {count}{_spelled(arguments[0])}s"
    if _models(annotation):
        return "section or null" if types.NoneType in arguments else "section"
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is dict:
        return f"mapping of text to {_spelled(arguments[1])}"
    # What else stands in an Annotated says more of the same type.
    parts = arguments[:1] if origin is typing.Annotated else arguments
    return " or ".join(_spelled(part) for part in parts)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The component classes in an annotation, in order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) is dict:
        return []
    return [model for argument in typing.get_args(annotation) for model in _models(argument)]


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(PAGE)
