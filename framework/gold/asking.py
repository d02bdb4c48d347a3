"""Asking a judge: several requests at a time, again where one was lost, and never twice about one text."""

import http.client
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from framework.data.paths import expand
from framework.errors import GoldilocksError, RunError, UserError
from framework.gold.judge import Judge
from framework.gold.replies import Replies
from framework.types import Scores

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0
"""Before the first retry, doubled before each further one up to the longest."""


class JudgeScorer:
    """Asks for what is not in the cache, and reads the replies."""

    def __init__(self, settings: Judge) -> None:
        self.settings, self.where = settings, f"judge {settings.model} at {settings.url}"
        self._key = settings.api_key()
        self._replies = Replies(Path(expand(settings.cache)), settings.url, settings.model, settings.most_calls)
        self._opener = urllib.request.build_opener(_NoRedirect)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """The number in the reply about each text.

        Raises:
            RunError: no reply, too many without a number, or the limit of calls; what was replied is kept.
            UserError: the endpoint refuses the request.
        """
        import torch

        asked = [self._body(*texts) for texts in zip(prompts, responses, strict=True)]
        replies = self._replies.get(asked)
        missing = [body for body in dict.fromkeys(asked) if body not in replies]
        if missing:
            replies |= self._ask_all(missing)
        read = [self._read(replies[body]) for body in asked]
        bad = [row for row, value in enumerate(read) if value is None]
        settings = self.settings
        if bad and (settings.unreadable is None or len(bad) > settings.max_unreadable_share * len(read)):
            raise RunError(
                f"{self.where}: {len(bad)} of {len(read)} replies hold no one number from {settings.lowest:g} to "
                f"{settings.highest:g}, for example {replies[asked[bad[0]]]!r:.200}: mend template, pattern or max_tokens, "
                "or set unreadable and max_unreadable_share"
            )
        values = [settings.unreadable if value is None else value for value in read]
        return Scores(torch.tensor(values, dtype=torch.float32))

    def _body(self, prompt: str, response: str) -> str:
        """What is sent about a text, spelled in one way only: the cache knows it by that."""
        filled = {"{prompt}": prompt, "{response}": response}
        content = re.sub(r"\{prompt\}|\{response\}", lambda found: filled[found[0]], self.settings.template)
        sent: dict[str, Any] = {"model": self.settings.model, "messages": [{"role": "user", "content": content}]}
        sent |= {"temperature": self.settings.temperature, "max_tokens": self.settings.max_tokens} | self.settings.extra
        return json.dumps({name: value for name, value in sent.items() if value is not None}, sort_keys=True)

    def _read(self, reply: Mapping[str, Any]) -> float | None:
        """The score in a reply; None where it was cut, or holds no number, several, or one out of range."""
        if reply["finish_reason"] == "length" or not isinstance(reply["content"], str):
            return None
        found = re.finditer(self.settings.pattern, reply["content"])
        try:
            (value,) = {float(match[1] if match.re.groups else match[0]) for match in found}
        except (ValueError, TypeError):
            return None
        return value if self.settings.lowest <= value <= self.settings.highest else None

    def _ask_all(self, bodies: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Replies to all, several under way at a time; each is kept as it comes, whatever becomes of the others."""
        self._replies.reserve(bodies)
        found: dict[str, dict[str, Any]] = {}
        failure: GoldilocksError | None = None
        halt = threading.Event()
        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            asked = {pool.submit(self._ask, body, halt): body for body in bodies}
            try:
                for done in as_completed(asked):
                    try:
                        found[asked[done]] = reply = done.result()
                        self._replies.put(asked[done], reply)
                    except GoldilocksError as error:
                        failure = failure or error
                        halt.set()
            finally:
                halt.set()
                self._replies.release([body for body in bodies if body not in found])
        if failure:
            raise failure
        return found

    def _ask(self, body: str, halt: threading.Event) -> dict[str, Any]:
        """One reply, asked for until there is one."""
        why = "another request failed"
        for tried in range(self.settings.retries + 1):
            if halt.is_set():  # another request has failed for good, and the run stops with its error
                break
            try:
                return self._post(body)
            except _LostError as error:
                why = str(error)
                wait = max(error.wait, FIRST_WAIT_SECONDS * 2**tried) if tried < self.settings.retries else 0.0
                halt.wait(min(wait, LONGEST_WAIT_SECONDS))
        raise RunError(f"{self.where}: no reply after {tried + 1} tries: {why}")

    def _post(self, body: str) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        url = f"{self.settings.url.rstrip('/')}/chat/completions"
        try:
            request = urllib.request.Request(url, body.encode(), headers)
            with self._opener.open(request, timeout=self.settings.timeout_seconds) as answer:
                choice = json.load(answer)["choices"][0]
                return {"content": choice["message"]["content"], "finish_reason": choice.get("finish_reason")}
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code}: {self._shown(error.read(2000).decode(errors='replace'))}"
            if error.code not in (408, 429) and error.code < 500:
                raise UserError(f"{self.where} refuses: {why}") from None
            after = error.headers.get("Retry-After") or ""
            raise _LostError(why, float(after) if after.isdecimal() else 0.0) from None
        except (OSError, http.client.HTTPException) as error:
            raise _LostError(self._shown(f"{type(error).__name__}: {error}")) from None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise _LostError(f"no chat completion came back ({self._shown(repr(error))})") from None

    def _shown(self, text: str) -> str:
        """What a server said, in one line and without the key, which some repeat."""
        line = " ".join(text.split())
        return (line.replace(self._key, "***") if self._key else line)[:300]


class _LostError(Exception):
    """A request to be sent again; `wait` is how many seconds the server asks for."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: the key is meant for the named server."""

    def redirect_request(self, *_: Any) -> None: ...
