"""A function of your own as gold, or as the proxy."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from framework.component import Component
from framework.errors import RunError, one_line
from framework.python_function import load_function
from framework.types import GoldScorer, Scores

LARGEST = 3.4e38
"""Of single precision."""


class Python(Component):
    """Judges texts by a Python function: `function(prompts, responses)` gives a list with a number for each."""

    kind: Literal["python"] = "python"
    worlds: ClassVar[tuple[str, ...] | None] = None
    function: str = Field(pattern=r"^[\w.]+:[\w.]+$")
    """`module:name`; the module is looked for in the working folder too. Its file is part of every fingerprint."""

    def check(self) -> Callable[..., Any]:
        """The function, imported; raises as `load_function`."""
        return load_function(self.function, "prompts", "responses")

    def build(self, device: str) -> GoldScorer:
        """A scorer that calls the function, which chooses its device itself; raises as `load_function`."""
        return PythonScorer(self.function, self.check())


class PythonScorer:
    """Calls the function, and takes nothing from it but one finite number per text."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.where, self.function = f"function={name}", function

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """What the function says of each text, in its own unit. Raises RunError where that is no finite number."""
        import torch

        try:
            given = self.function(list(prompts), list(responses))
        except Exception as error:
            raise RunError(f"{self.where} raised {type(error).__name__}: {one_line(error)[:300]}") from error
        scores = given.tolist() if hasattr(given, "tolist") else given  # of an array or a tensor
        if not isinstance(scores, list | tuple):
            what = f"gave a {type(given).__name__}"
            raise RunError(f"{self.where} {what}: it must give a list with a number for each text")
        if len(scores) != len(responses):
            what = f"gave {len(scores)} scores for {len(responses)} texts"
            raise RunError(f"{self.where} {what}: it must give one for each")
        for row, value in enumerate(scores):
            try:
                sound = not isinstance(value, str | bytes) and math.fabs(value) < LARGEST
            except (TypeError, ValueError, OverflowError):
                sound = False
            if not sound:
                text = f"row {row}, {responses[row]!r:.80}"
                raise RunError(f"{self.where} gave {value!r:.80} for {text}: a finite number is needed")
        return Scores(torch.tensor([float(value) for value in scores], dtype=torch.float32))
