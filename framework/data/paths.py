"""Paths as users write them."""

import os
import re
from pathlib import Path
from typing import Final

from framework.errors import UserError

DEFAULTS: Final = {"GOLDILOCKS_SHARED": "../shared"}
"""Of variables: the folder of models and data sets that several checkouts share."""
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))")


def expand(path: str) -> str:
    """The path with `~`, `$VARIABLE` and `${VARIABLE}` filled in; a relative one stays relative to the working folder.

    Raises:
        UserError: the path is empty, or names a variable that is not set or a user that there is not.
    """
    if not path.strip() or "\0" in path:
        raise UserError(f"{path!r} is no path: name a file or a folder")
    variables = DEFAULTS | os.environ
    expanded = os.path.expanduser(_VARIABLE.sub(lambda found: variables.get(found[1] or found[2], found[0]), path))
    unset = _VARIABLE.search(expanded)
    if unset and not os.path.exists(expanded):  # a name may hold the sign
        name = unset[1] or unset[2]
        raise UserError(f"{path}: the environment variable {name} is not set; export it or write the path out")
    if expanded.startswith("~"):
        raise UserError(f"{path}: there is no such user; write the path out, or ./{path} for a name that begins so")
    return expanded


def absolute(place: str) -> str:
    """A folder's absolute path: a worker elsewhere has another current folder. A hub id stays what it is."""
    path = Path(expand(place))
    return str(path.resolve()) if path.exists() else str(path)
