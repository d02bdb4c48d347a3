"""Real text as a world: openings that people wrote are prompts, and what they wrote next is the corpus."""

import re
from typing import ClassVar, Literal

from pydantic import Field

from framework.component import Component, WordRange
from framework.data.dialogues import cleaned, read_dialogues
from framework.data.tables import TableSource, column_names, read_columns
from framework.errors import UserError
from framework.seeding import derive, numpy_generator

Split = Literal["label", "train"]
"""What prompts are for: sampling pairs that the proxy learns from, or training the policy."""


class Text(Component):
    """Prompts and corpus from tables (columns: docs/data.md); prompts for pairs and prompts for training never meet.

    With `opening_words` a prompt is the first few words of a text, and the rest is its continuation, so that
    prompt + continuation is the text. Without, prompts are whole, text or conversations.
    """

    kind: Literal["text"] = "text"
    needs_pretrained: ClassVar[bool] = True
    """Whether the policy must bring a tokenizer: yes, real text has more words than a world could list."""
    missing_end_penalty: ClassVar[float] = 0.0
    """Reward units off, by default, for a response that does not end by itself: an opening may go on for ever."""
    source: TableSource
    """The table that prompts come from."""
    corpus_source: TableSource | None = None
    """The table that the policy is first fitted to. None: there is nothing to fit it to."""
    opening_words: WordRange | None = (4, 12)
    """Words: fewest and most of an opening, drawn per text. None: prompts are whole."""
    label_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of prompts kept for pairs; the others train the policy."""
    max_prompts: int | None = Field(default=None, ge=1)
    """Prompts of one split at most. None: all."""
    max_corpus: int | None = Field(default=None, ge=1)
    """Texts of the corpus at most. None: all."""
    draw: int = Field(default=0, ge=0)
    """Seed of the openings' lengths and the order of prompts: part of the data, the same in every run."""

    def prompts(self, split: Split) -> list[str]:
        """Distinct prompts of one split, shuffled; a hash of first words decides, so what begins alike stays together.

        Raises:
            UserError: the table is unreadable, or no prompt is left for this split.
        """
        found = [prompt for prompt, _ in self._read(self.source, replies=False)]
        kept = [prompt for prompt in dict.fromkeys(found) if self._split_of(prompt) == split]
        if not kept:
            what = f"{self.source.path}: no prompt is left for {split!r} of {len(found)} usable texts"
            raise UserError(f"{what}; give more rows, or change world.label_share or world.opening_words")
        order = numpy_generator(self.draw, "text", "prompts", split).permutation(len(kept))
        return [kept[i] for i in order[: self.max_prompts]]

    def corpus(self, seed: int) -> list[tuple[str, str]]:
        """Prompt and continuation, with its first blank, shuffled; the seed picks which where `max_corpus` is fewer.

        Raises:
            UserError: no corpus was named, it is unreadable, or no text is long enough.
        """
        if self.corpus_source is None:
            raise UserError("world.corpus_source is not set: name a table to fit the policy to, or set sft.steps=0")
        pairs = self._read(self.corpus_source, replies=True)
        if not pairs:
            raise UserError(f"{self.corpus_source.path}: no text is longer than world.opening_words")
        order = numpy_generator(seed, "text", "corpus").permutation(len(pairs))
        return [pairs[i] for i in order[: self.max_corpus]]

    def _read(self, source: TableSource, replies: bool) -> list[tuple[str, str]]:
        """Opening and continuation of each text that is long enough; or whole prompts, with their `replies` or none."""
        if not self.opening_words:
            return read_dialogues(source, replies)
        try:
            rows = read_columns(source, ["text"])
        except UserError as error:
            whole = [name for name in ("prompt", "messages") if source.theirs(name) in column_names(source)]
            if not whole:
                raise
            raise UserError(f"{error}; or take {whole[0]!r} as whole prompts: world.opening_words=null") from error
        return [pair for pair in map(self._parted, (row["text"] for row in rows)) if pair]

    def _parted(self, text: str) -> tuple[str, str] | None:
        """Opening and continuation, or None where the text is too short to have both."""
        assert self.opening_words is not None
        text = cleaned(text).strip()
        ends = [word.end() for word in re.finditer(r"\S+", text)]
        fewest, most = self.opening_words
        if len(ends) <= fewest:
            return None
        wanted = fewest + derive(self.draw, "opening", text) % (most - fewest + 1)
        cut = ends[min(wanted, len(ends) - 1) - 1]
        return text[:cut], text[cut:]

    def _split_of(self, prompt: str) -> Split:
        words = prompt.lower().split()
        key = " ".join(words[: self.opening_words[0]] if self.opening_words else words)
        return "label" if derive("text-split", key) % 10_000 < self.label_share * 10_000 else "train"
