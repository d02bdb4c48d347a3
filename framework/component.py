"""A component is its own configuration.

An idea (an objective, an aggregation, a KL controller, a gold scorer ...) is one frozen pydantic model: its fields are
its settings, its `kind` is its name in YAML, and its methods are the idea. Members of one family stand in an explicit
discriminated union in the family's `__init__.py`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

LEAST, MOST = 1e-37, 1e37
"""Sizes of numbers that float32 can hold, with room to compute: beyond them a setting is 0 or infinite in effect."""

LARGEST, SEEDS = 2**31 - 1, ("seed", "seeds", "draw")
"""The largest count, and the settings that are none: any number may be a seed."""


class Component(BaseModel):
    """Base of every configurable part: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    beside: ClassVar[frozenset[str]] = frozenset()
    """Settings that change no number: fingerprints leave them out."""

    @model_validator(mode="before")
    @classmethod
    def _numbers_have_effect(cls, tree: Any) -> Any:
        """Refuses a truth value in the place of a number, which pydantic takes for 0 or 1, and what float32 cannot hold."""
        for name, value in tree.items() if isinstance(tree, dict) else ():
            kinds = set(_kinds(cls.model_fields[name].annotation)) if name in cls.model_fields else {Any}
            for one in value if isinstance(value, list | tuple) else [value]:
                wrong = ""
                if isinstance(one, bool) and kinds & {int, float} and bool not in kinds:
                    wrong = "a number is wanted, not a truth value"
                elif float in kinds and not (_size(one) == 0 or LEAST <= _size(one) <= MOST):
                    wrong = f"input should be a finite number, 0 or from {LEAST:g} to {MOST:g} in size"
                elif type(one) is int and int in kinds and abs(one) > LARGEST and name not in SEEDS:
                    wrong = f"input should be at most {LARGEST} in size"
                if wrong:
                    raise PydanticCustomError("no_effect", "{wrong}", {"key": name, "value": value, "wrong": wrong})
        return tree


def _size(value: Any) -> float:
    """Size of what pydantic would take for a number; of anything else 0. YAML 1.1 has `1e300` as text."""
    try:
        return abs(float(value)) if isinstance(value, float | str) else 0.0
    except ValueError:
        return 0.0


def _kinds(annotation: Any) -> list[Any]:
    """The plain types inside an annotation."""
    parts = get_args(annotation)
    return [kind for part in parts for kind in _kinds(part)] if parts else [annotation]


def spelled(value: Any) -> Any:
    """A component as plain values: its kind, and the settings that are not at their defaults.

    Fingerprints are taken of it: a new key with a default changes none; another default must raise artifacts.REVISION.
    """
    if isinstance(value, Component):
        return {
            name: spelled(own)
            for name, field in type(value).model_fields.items()
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
