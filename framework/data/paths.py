"""Paths as users write them."""

import os
import re
from typing import Final

from framework.errors import UserError

SHARED_VARIABLE: Final = "GOLDILOCKS_SHARED"
"""Names the folder of models and data sets that several checkouts share."""
SHARED_DEFAULT: Final = "../shared"


def expand(path: str) -> str:
    """The path with `~` and `${VARIABLE}` filled in; a relative one stays relative to the working folder.

    `GOLDILOCKS_SHARED` falls back to `../shared`.

    Raises:
        UserError: the path names a variable that is not set.
    """
    if SHARED_VARIABLE not in os.environ:
        path = path.replace(f"${{{SHARED_VARIABLE}}}", SHARED_DEFAULT)
    expanded = os.path.expanduser(os.path.expandvars(path))
    unset = re.search(r"\$\{(\w+)\}", expanded)
    if unset:
        raise UserError(f"{path}: the environment variable {unset[1]} is not set; export it or write the path out")
    return expanded
