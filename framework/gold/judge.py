"""A chat model behind an OpenAI-compatible endpoint as gold, or as the proxy."""

import os
import re
import socket
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from framework.component import Component
from framework.errors import UserError
from framework.types import GoldScorer

TEMPLATE: Final = (
    "Judge how good the response to the prompt is, from 0 (worst) to 10 (best). Answer with the number alone.\n\n"
    "Prompt:\n{prompt}\n\nResponse:\n{response}"
)


class Judge(Component):
    """Judges texts by the number that a chat model replies with, asked over HTTP; replies are kept on disk."""

    kind: Literal["judge"] = "judge"
    worlds: ClassVar[tuple[str, ...] | None] = None
    """Kinds of the worlds that it can judge; None: any."""
    beside: ClassVar[frozenset[str]] = frozenset(
        ("concurrency", "retries", "timeout_seconds", "api_key_variable", "cache", "most_calls")
    )
    url: str = Field(pattern=r"^https?://[^\s@?#]+$")
    """Of the endpoint, without `/chat/completions`: `http://localhost:8000/v1`."""
    model: str
    """Name of the model there."""
    template: str = TEMPLATE
    """What is asked: {prompt} and {response} are filled in, other braces stay."""
    pattern: str = r"^\s*([+-]?\d+(?:\.\d+)?)\s*$"
    """Regular expression that finds the score in a reply: its first group, or the whole match. It must find one number."""
    lowest: float = 0.0
    """Smallest score that a reply may have."""
    highest: float = 10.0
    """Largest score that a reply may have."""
    unreadable: float | None = None
    """Score of a reply in which no number from `lowest` to `highest` is found. None: the run stops."""
    max_unreadable_share: float = Field(default=0.05, ge=0, le=1)
    """Share of such replies in one call; above it the run stops all the same."""
    temperature: float = Field(default=0.0, ge=0)
    """Of the judge's sampling."""
    max_tokens: int = Field(default=16, ge=1)
    """Tokens of a reply; one that is cut there is not read."""
    extra: dict[str, Any] = Field(default={})
    """What else is sent, such as `seed`; null takes a key away, such as max_tokens for one that wants another."""
    concurrency: int = Field(default=8, ge=1)
    """Requests under way at a time."""
    retries: int = Field(default=6, ge=0)
    """Times that a request is sent again after a 408, 429, 5xx, a timeout or a lost connection, each after a longer wait."""
    timeout_seconds: float = Field(default=60.0, gt=0)
    """Until a request counts as lost."""
    api_key_variable: str | None = None
    """Name of the environment variable that holds the key, wherever the judge is asked from. The key is never written."""
    cache: str = "runs/judge.sqlite"
    """File of all replies, by what was sent: no text is paid for twice. On a disk of one machine."""
    most_calls: int | None = Field(default=None, ge=1)
    """Replies to be paid for, over all that share the cache. A batch that would exceed it stops the run. None: no limit."""

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        if "{response}" not in self.template:
            raise ValueError("template must contain {response}")
        if not self.lowest < self.highest:
            raise ValueError(f"lowest={self.lowest:g} must be below highest={self.highest:g}")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern is no regular expression: {error}") from None
        return self

    def check(self) -> None:
        """Look for the key.

        Raises:
            UserError: the variable holds none here.
        """
        self.api_key()

    def api_key(self) -> str:
        """The key, read now; empty where none is wanted.

        Raises:
            UserError: the variable holds none here.
        """
        key = os.environ.get(self.api_key_variable or "", "").strip()
        if self.api_key_variable and not re.fullmatch("[!-~]+", key):
            raise UserError(
                f"judge {self.model}: the environment variable {self.api_key_variable} holds no key on "
                f"{socket.gethostname()}: export it there before the command, or before `ray start`"
            )
        return key

    def build(self, device: str) -> GoldScorer:
        """A scorer that asks from this process.

        Raises:
            UserError: no key, or a file of replies that cannot be opened.
        """
        from framework.gold.asking import JudgeScorer  # HTTP takes a moment to import

        return JudgeScorer(self)
