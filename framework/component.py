"""A component is its own configuration.

An idea (an objective, an aggregation, a KL controller, a gold scorer ...) is one frozen pydantic
model: its fields are its settings, its `kind` is its name in YAML, and its methods are the idea.
Members of one family stand in an explicit discriminated union in the family's `__init__.py`; there
is no registry to keep in step across processes.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict


class Component(BaseModel):
    """Base of every configurable part: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    beside: ClassVar[frozenset[str]] = frozenset()
    """Settings that change no number: fingerprints leave them out."""


def spelled(value: Any) -> Any:
    """A component as plain values: its kind, and the settings that are not at their defaults.

    This is what fingerprints are taken of: a new key with a default changes none that was taken before it. The default of
    an existing key must not be changed without raising `REVISION` in framework/artifacts.py.
    """
    if isinstance(value, Component):
        fields = type(value).model_fields
        return {
            name: spelled(own)
            for name, field in fields.items()
            if (name not in value.beside and (own := getattr(value, name)) != field.default) or name == "kind"
        }
    if isinstance(value, Mapping):
        return {name: spelled(own) for name, own in value.items()}
    return [spelled(own) for own in value] if isinstance(value, list | tuple) else value


def _fewest_first(words: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= words[0] <= words[1]:
        raise ValueError(f"{list(words)} must be [fewest, most] with 1 <= fewest <= most")
    return words


WordRange = Annotated[tuple[int, int], AfterValidator(_fewest_first)]
"""Words, fewest and most."""
