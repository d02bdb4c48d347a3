"""Every configuration key with its default; `python -m tests.repository.config_keys` writes the list anew.

The list is under version control, so a new, renamed or retuned knob shows in review. Its first line is the revision that
fingerprints carry: they are taken of what is not at its default, so a default that changes its value must raise it.
"""

import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from framework.artifacts import REVISION
from framework.config import Config

LIST = Path(__file__).with_suffix(".txt")
RAISE = "{}: a default has another value, so what was made before must not pass for it: raise REVISION in framework/artifacts.py"


def render() -> str:
    """The list as text; a member of a union is shown as `section[kind]`."""
    return "\n".join([f"# revision {REVISION}", *_lines(Config, "", None)]) + "\n"


def retuned(before: str, now: str) -> list[str]:
    """The keys of two such lists whose default has another value, where the revision is the same.

    Raising the revision makes every earlier run another one. A new key or one that is gone needs none of that.
    """
    (old_revision, *old), (revision, *new) = before.splitlines(), now.splitlines()
    if revision != old_revision:
        return []
    values = [dict(re.split(r" = |: ", line, maxsplit=1) for line in lines) for lines in (old, new)]
    return [key for key, value in values[0].items() if values[1].get(key, value) != value]


def _lines(model: type[BaseModel], path: str, default: BaseModel | None) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if name == "kind":
            continue
        here = f"{path}{name}"
        value = field.default if default is None else getattr(default, name)
        members = sections(field.annotation)
        if not members:
            # Fingerprints leave out what the class has by itself, which a section's default may override.
            alone = "" if value == field.default else f" (by itself {_shown(field.default)})"
            yield f"{here} = {_shown(value)}{alone}"
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
    if changed := retuned(LIST.read_text(), render()):
        raise SystemExit(RAISE.format(", ".join(changed)))
    LIST.write_text(render())
