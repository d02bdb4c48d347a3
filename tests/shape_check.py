"""The type checker that tests put on every function of `framework`: shapes and dtypes of arrays."""

from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def check(function: Any) -> Any:
    """beartype on the annotations that name an array.

    The others are mypy's: beartype cannot look behind `Self` on a method, nor behind a protocol that
    is for the type checker only.
    """
    annotations = getattr(function, "__annotations__", {})
    function.__annotations__ = {name: hint for name, hint in annotations.items() if names_an_array(hint)}
    return beartype(function)


def names_an_array(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(names_an_array(argument) for argument in get_args(hint))
