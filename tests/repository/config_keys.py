"""Every configuration key with its default; `python -m tests.repository.config_keys` writes the list anew.

The list is under version control, so a new, renamed or retuned knob shows in review.
"""

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from framework.config import Config

LIST = Path(__file__).with_suffix(".txt")


def render() -> str:
    """The list as text; a member of a union is shown as `section[kind]`."""
    return "\n".join(_lines(Config, "", None)) + "\n"


def _lines(model: type[BaseModel], path: str, default: BaseModel | None) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if name == "kind":
            continue
        here = f"{path}{name}"
        value = field.default if default is None else getattr(default, name)
        members = sections(field.annotation)
        if not members:
            yield f"{here} = {_shown(value)}"
            continue
        union = len(members) > 1 or "kind" in members[0].model_fields
        if value is PydanticUndefined:
            yield f"{here}: required"
        elif union or value is None:
            yield f"{here}: {getattr(value, 'kind', None)}"
        for member in members:
            inner = f"{here}[{member.model_fields['kind'].default}]." if union else f"{here}."
            yield from _lines(member, inner, value if isinstance(value, member) else None)


def sections(annotation: Any) -> list[type[BaseModel]]:
    """The component classes inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in sections(argument)]


def _shown(value: Any) -> str:
    return "required" if value is PydanticUndefined else json.dumps(value)


if __name__ == "__main__":
    LIST.write_text(render())
