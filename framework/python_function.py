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

    Raises UserError: it means another module than the working folder's, or a package around it cannot be imported.
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
        raise _broken(function, name, error) from error
    path = Path(spec.origin) if spec and spec.has_location and spec.origin else None
    own, inside = folder / name.partition(".")[0], path and folder.resolve() in path.resolve().parents
    if not inside and (own.with_suffix(".py").is_file() or (own / "__init__.py").is_file()):
        what = f"{name} means {path or 'a module of Python itself'} here, not the one in {folder}"
        raise UserError(f"function={function}: {what}: rename yours, or begin anew")
    return path


def load_function(function: str, *arguments: str) -> Callable[..., Any]:
    """The function, imported as its file is now; `arguments` are the names of what it will be called with.

    Raises UserError: no such module or name, an import that fails, or nothing that can be called with so much.
    """
    name, _, path = function.partition(":")
    source = source_of(function)
    if source is None:
        what = f"there is no module {name} in {Path.cwd()} or among the installed ones"
        mend = "write module:name, as rules:score for score in rules.py of the folder that you run from"
        raise UserError(f"function={function}: {what}; {mend}")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    try:
        found: Any = importlib.import_module(name)
        if found.__dict__.setdefault("__goldilocks__", digest) != digest:  # edited since this process imported it
            found = importlib.reload(found)
            found.__dict__["__goldilocks__"] = digest
    except (Exception, SystemExit) as error:
        raise _broken(function, source, error) from error
    try:
        for part in path.split("."):
            found = getattr(found, part)
        inspect.signature(found).bind(*arguments)
    except AttributeError:
        raise UserError(f"function={function}: {source} has no {path}") from None
    except TypeError as error:
        raise UserError(f"function={function} cannot be called as ({', '.join(arguments)}): {error}") from error
    except ValueError:  # a function of an extension module does not tell what it takes
        pass
    return found


def _broken(function: str, what: str | Path, error: BaseException) -> UserError:
    return UserError(f"function={function}: {what} cannot be imported: {type(error).__name__}: {one_line(error)[:300]}")
