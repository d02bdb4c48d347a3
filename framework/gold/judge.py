"""A chat model behind an OpenAI-compatible endpoint as gold, or as the proxy: never asked twice about one text."""

import hashlib
import http.client
import json
import os
import re
import socket
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from framework.component import Component
from framework.data.paths import expand
from framework.errors import RunError, UserError
from framework.types import GoldScorer, Scores

TEMPLATE: Final = (
    "Judge how good the response to the prompt is, from 0 (worst) to 10 (best). Answer with the number alone.\n\n"
    "Prompt:\n{prompt}\n\nResponse:\n{response}"
)
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0
"""Before the first retry, doubled before each further one up to the longest."""

Reply = dict[str, Any]
"""`content` and `finish_reason`."""


class Judge(Component):
    """Judges texts by the number that a chat model replies with, asked over HTTP; replies are kept on disk."""

    kind: Literal["judge"] = "judge"
    worlds: ClassVar[tuple[str, ...] | None] = None
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
    temperature: float = Field(default=0.0, ge=0)
    """Of the judge's sampling."""
    max_tokens: int = Field(default=16, ge=1)
    """Tokens of a reply; one that is cut there is not read."""
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

    def check(self) -> str:
        """The key, read now; empty where none is wanted. Raises UserError where the variable holds none here."""
        key = os.environ.get(self.api_key_variable or "", "").strip()
        if self.api_key_variable and not re.fullmatch("[!-~]+", key):
            what = f"the environment variable {self.api_key_variable} holds no key on {socket.gethostname()}"
            raise UserError(f"judge {self.model}: {what}: export it there before the command, or before `ray start`")
        return key

    def build(self, device: str) -> GoldScorer:
        """A scorer that asks from this process. Raises UserError: no key, or replies that cannot be opened."""
        return JudgeScorer(self)


class JudgeScorer:
    """Asks for what is not in the cache, and reads the replies."""

    def __init__(self, settings: Judge) -> None:
        self.settings, self.where = settings, f"judge {settings.model} at {settings.url}"
        self._key, self._replies = settings.check(), _Replies(settings)
        self._send = urllib.request.build_opener(_NoRedirect).open

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """The number in the reply about each text.

        Raises:
            RunError: no reply, one without a number, or the limit of calls; what was replied is kept.
            UserError: the endpoint refuses the request.
        """
        import torch

        asked = [self._body(*texts) for texts in zip(prompts, responses, strict=True)]
        replies = self._replies.take(asked)
        if missing := [body for body in dict.fromkeys(asked) if body not in replies]:
            replies |= self._ask_all(missing)
        values = [self._read(replies[body]) for body in asked]
        if bad := [row for row, value in enumerate(values) if value is None]:
            raise RunError(
                f"{self.where}: {len(bad)} of {len(values)} replies hold no one number from {self.settings.lowest:g} to "
                f"{self.settings.highest:g}, such as {replies[asked[bad[0]]]!r:.200}: mend template, pattern or max_tokens"
            )
        return Scores(torch.tensor(values, dtype=torch.float32))

    def _body(self, prompt: str, response: str) -> str:
        """What is sent about a text, spelled in one way only: the cache knows it by that."""
        filled = {"{prompt}": prompt, "{response}": response}
        content = re.sub(r"\{prompt\}|\{response\}", lambda found: filled[found[0]], self.settings.template)
        sent = self.settings.model_dump(include={"model", "temperature", "max_tokens"})
        return json.dumps(sent | {"messages": [{"role": "user", "content": content}]}, sort_keys=True)

    def _read(self, reply: Reply) -> float | None:
        """The score in a reply; None where it was cut, or holds no number, several, or one out of range."""
        if reply["finish_reason"] == "length" or not isinstance(reply["content"], str):
            return None
        found = re.finditer(self.settings.pattern, reply["content"])
        try:
            (value,) = {float(match[1] if match.re.groups else match[0]) for match in found}
        except (ValueError, TypeError):
            return None
        return value if self.settings.lowest <= value <= self.settings.highest else None

    def _ask_all(self, bodies: Sequence[str]) -> dict[str, Reply]:
        """Replies to all, several under way at a time; each is kept as it comes, whatever becomes of the others."""
        halt = threading.Event()
        try:
            with ThreadPoolExecutor(self.settings.concurrency) as pool:
                try:
                    return dict(zip(bodies, pool.map(lambda body: self._ask(body, halt), bodies), strict=True))
                finally:
                    halt.set()  # where one has failed for good the others try no more
        finally:
            self._replies.release(bodies)

    def _ask(self, body: str, halt: threading.Event) -> Reply:
        """One reply, asked for until there is one."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        url = f"{self.settings.url.rstrip('/')}/chat/completions"
        for tried in range(self.settings.retries + 1):
            wait = FIRST_WAIT_SECONDS * 2**tried
            try:
                request = urllib.request.Request(url, body.encode(), headers)
                with self._send(request, timeout=self.settings.timeout_seconds) as answer:
                    choice = json.load(answer)["choices"][0]
                reply = {"content": choice["message"]["content"], "finish_reason": choice.get("finish_reason")}
            except urllib.error.HTTPError as error:
                why = self._shown(f"HTTP {error.code}: {error.read(2000).decode(errors='replace')}")
                if error.code not in (408, 429) and error.code < 500:
                    raise UserError(f"{self.where} refuses: {why}") from None
                after = error.headers.get("Retry-After") or ""
                wait = max(wait, float(after) if after.isdecimal() else 0.0)
            except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError) as error:
                why = self._shown(f"no completion came back ({type(error).__name__}: {error})")
            else:
                self._replies.put(body, reply)
                return reply
            if tried < self.settings.retries and halt.wait(min(wait, LONGEST_WAIT_SECONDS)):
                break
        raise RunError(f"{self.where}: no reply after {tried + 1} tries: {why}")

    def _shown(self, text: str) -> str:
        """What a server said, in one line and without the key, which some repeat."""
        line = " ".join(text.split())
        return (line.replace(self._key, "***") if self._key else line)[:300]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: the key is meant for the named server."""

    def redirect_request(self, *_: Any) -> None: ...


class _Replies:
    """Replies on disk, by the hash of what was asked; threads, actors and runs may share a file.

    A row without a reply is a request under way: it counts, for it may be paid for.
    """

    def __init__(self, settings: Judge) -> None:
        self.path, self.most = Path(expand(settings.cache)), settings.most_calls
        self.judge = f"{settings.url} {settings.model}"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot make {self.path.parent} for a judge's replies"
            raise UserError(f"{what}: {error.strerror}; set cache") from error
        with self._open() as db:
            db.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, judge TEXT NOT NULL, reply TEXT)")

    def take(self, bodies: Sequence[str]) -> dict[str, Reply]:
        """The replies that are there. The others are counted before they are asked for: all, or none if too many."""
        with self._open() as db:
            query = "SELECT reply FROM replies WHERE key = ?"
            rows = {body: db.execute(query, (self._key(body),)).fetchone() for body in bodies}
            found = {body: json.loads(row[0]) for body, row in rows.items() if row and row[0]}
            missing = [(self._key(body), self.judge) for body in rows if body not in found]
            db.executemany("INSERT OR IGNORE INTO replies VALUES (?, ?, NULL)", missing)
            (count,) = db.execute("SELECT COUNT(*) FROM replies WHERE judge = ?", (self.judge,)).fetchone()
            if missing and self.most is not None and count > self.most:
                what = f"{len(missing)} more calls would make {count}, over most_calls={self.most}"
                mend = "raise most_calls in the command or in the run's config.yaml"
                raise RunError(f"judge {self.judge}: {what}; all replies are kept in {self.path}: {mend}")
        return found

    def put(self, body: str, reply: Reply) -> None:
        row = (self._key(body), self.judge, json.dumps(reply))
        with self._open() as db:
            db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", row)

    def release(self, bodies: Sequence[str]) -> None:
        """Requests that came to nothing are not counted."""
        with self._open() as db:
            rows = [(self._key(body),) for body in bodies]
            db.executemany("DELETE FROM replies WHERE key = ? AND reply IS NULL", rows)

    def _key(self, body: str) -> str:
        return hashlib.sha256(f"{self.judge} {body}".encode()).hexdigest()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction, which others wait for."""
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as db, db:
                db.execute("BEGIN IMMEDIATE")
                yield db
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self.path}: a judge's replies cannot be read or written ({error}); set cache") from error
