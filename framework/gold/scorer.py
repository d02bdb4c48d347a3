"""What every gold scorer answers, and with what."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ScoredTexts:
    """Gold scores of a batch of texts, with how many texts were judged only in part."""

    values: Float[Tensor, "B"]
    """What gold says of each text, in the scorer's own unit; finite, on the CPU."""
    num_cut: int
    """Texts that were longer than the scorer can read and were cut."""


class GoldScorer(Protocol):
    """Judges whole texts; built by a gold component, and the only thing an actor needs to hold."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> ScoredTexts:
        """Scores of `prompt + response`, in the order given.

        Responses are decoded in context, so they carry their own leading space. A scorer whose
        tokenizer has a chat template places the two as a user and an assistant turn instead.
        """
        ...
