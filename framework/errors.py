"""What can go wrong. Errors cross process boundaries: every one is built from a single string and pickles.

A message is one line: what happened, where, and how to mend it.
"""


def one_line(error: BaseException) -> str:
    """The message, whatever its line breaks, in one line."""
    return " ".join(str(error).split())


def first_line(error: BaseException, otherwise: str | None = None) -> str:
    """The first line of the message; where there is none what is given `otherwise`, else the name of its type."""
    return (str(error).strip().splitlines() or [type(error).__name__ if otherwise is None else otherwise])[0]


def short(value: object) -> str:
    """A value as Python writes it, its middle left out where it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:60]} ... {text[-30:]}"


class GoldilocksError(Exception):
    """Base of every error this project raises on purpose."""

    exit_code = 1


class UserError(GoldilocksError, ValueError):
    """The user can mend this: a key, a path, a column, a number. The CLI exits with 2."""

    exit_code = 2


class RunError(GoldilocksError, RuntimeError):
    """A run had to stop: a NaN, a dead role, a full disk. The CLI exits with 1."""


class DivergedError(RunError):
    """A run has come where it would come again: going on with it mends nothing. The CLI exits with 1."""


class PlacementError(GoldilocksError, RuntimeError):
    """The cluster cannot hold the layout that was asked for. The CLI exits with 2."""

    exit_code = 2
