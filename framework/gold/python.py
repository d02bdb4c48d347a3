"""A function of your own as gold, or as the proxy."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from framework.component import Component
from framework.errors import RunError, one_line
from framework.python_function import load_function
from framework.types import GoldScorer, Scores


class Python(Component):
    """Judges texts by a Python function: `function(prompts, responses)` gives a list with a number for each."""

    kind: Literal["python"] = "python"
    worlds: ClassVar[tuple[str, ...] | None] = None
    """Kinds of the worlds that it can judge; None: any."""
    function: str = Field(pattern=r"^[\w.]+:[\w.]+$")
    """`module:name`; the module is looked for in the working folder too. Its file is part of every fingerprint."""

    def check(self) -> None:
        """Import the function.

        Raises:
            UserError: as `load_function`.
        """
        load_function(self.function, "prompts", "responses")

    def build(self, device: str) -> GoldScorer:
        """A scorer that calls the function, which chooses its device itself.

        Raises:
            UserError: as `load_function`.
        """
        return PythonScorer(self.function, load_function(self.function, "prompts", "responses"))


class PythonScorer:
    """Calls the function, and takes nothing from it but one finite number per text."""

    def __init__(self, name: str, function: Callable[[list[str], list[str]], Any]) -> None:
        self.name, self.function = name, function

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """What the function says of each text, in its own unit.

        Raises:
            RunError: it raised, or gave something else than as many finite numbers as there are texts.
        """
        import torch

        where = f"function={self.name}"
        try:
            given = self.function(list(prompts), list(responses))
        except Exception as error:
            raise RunError(f"{where} raised {type(error).__name__}: {one_line(error)[:300]}") from error
        scores = given.tolist() if hasattr(given, "tolist") else given  # of an array or a tensor
        if not isinstance(scores, list | tuple):
            raise RunError(f"{where} gave a {type(given).__name__}: it must give a list with a number for each text")
        if len(scores) != len(responses):
            raise RunError(f"{where} gave {len(scores)} scores for {len(responses)} texts: it must give one for each")
        for row, value in enumerate(scores):
            if isinstance(value, str | bytes) or not _is_finite(value):
                text = f"row {row}, {responses[row]!r:.80}"
                raise RunError(f"{where} gave {value!r:.80} for {text}: a finite number is needed")
        return Scores(torch.tensor([float(value) for value in scores], dtype=torch.float32))


def _is_finite(value: Any) -> bool:
    """Whether it is a number that single precision holds."""
    try:
        return math.isfinite(value) and abs(value) < 3.4e38
    except (TypeError, ValueError, OverflowError):
        return False
