"""A function of the user's own, by `module:name`; the module is looked for in the working folder too."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from framework.errors import UserError, one_line


def source_of(function: str) -> Path | None:
    """The file of its module, whose contents are part of fingerprints; None where there is none.

    A module in the working folder is never mistaken for an installed one of the same name.

    Raises:
        UserError: the name means another module, or a package around it cannot be imported.
    """
    name, folder = function.partition(":")[0], Path.cwd()
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last: a file of the user's must not take the place of a library
    importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    except (Exception, SystemExit) as error:
        raise _broken(function, f"{name} cannot be imported", error) from error
    path = Path(spec.origin) if spec and spec.has_location and spec.origin else None
    own, inside = folder / name.partition(".")[0], path and folder.resolve() in path.resolve().parents
    if not inside and (own.with_suffix(".py").is_file() or (own / "__init__.py").is_file()):
        where = path or "a module of Python itself"
        raise UserError(
            f"function={function}: {name} means {where} here, not the one in {folder}: rename yours, or begin anew"
        )
    return path


def load_function(function: str, *arguments: str) -> Callable[..., Any]:
    """The function, imported as its file is now.

    Args:
        arguments: names of what it will be called with.

    Raises:
        UserError: no such module or name, an import that fails, or nothing that can be called with so much.
    """
    name, _, path = function.partition(":")
    source = source_of(function)
    if source is None:
        raise UserError(
            f"function={function}: there is no module {name} in {Path.cwd()} or among the installed ones; write "
            "module:name, as rules:score for score in rules.py of the folder that you run from"
        )
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    try:
        found: Any = importlib.import_module(name)
        if found.__dict__.setdefault("__goldilocks__", digest) != digest:
            found = importlib.reload(found)  # edited since this process imported it
            found.__dict__["__goldilocks__"] = digest
    except (Exception, SystemExit) as error:
        raise _broken(function, f"{source} cannot be imported", error) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise UserError(f"function={function}: {source} has no {path}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"function={function}: {path} is a {type(found).__name__}, which cannot be called")
    try:
        inspect.signature(found).bind(*arguments)
    except TypeError as error:
        raise UserError(f"function={function}: it is called as ({', '.join(arguments)}), and {error}") from error
    except ValueError:  # a function of an extension module does not tell what it takes
        pass
    return found


def _broken(function: str, what: str, error: BaseException) -> UserError:
    return UserError(f"function={function}: {what}: {type(error).__name__}: {one_line(error)[:300]}")
