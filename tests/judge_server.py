"""A chat-completions endpoint on loopback that a test starts, scripts and reads."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]
"""A status, and a body: an object becomes JSON, text stays as it is; None hangs up."""


class JudgeServer(ThreadingHTTPServer):
    """Replies as `answer` says of the number of the request (from 0) and its body."""

    daemon_threads = True

    def __init__(self, answer: Callable[[int, dict[str, Any]], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.lock = answer, threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.under_way = self.most_under_way = 0
        self.delay = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def contents(self) -> list[str]:
        """What was asked, in the order in which it came."""
        return [body["messages"][0]["content"] for body in self.bodies]


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            number = len(server.bodies)
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            server.paths.append(self.path)
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        time.sleep(server.delay)
        with server.lock:
            server.under_way -= 1
        status, answer = server.answer(number, body)
        if answer is None:
            self.close_connection = True
            return
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        if status in (301, 302, 307):
            self.send_header("Location", answer)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):  # a client that no longer waits
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing: tests read `bodies`."""


def said(content: Any, finish: str = "stop") -> Answer:
    """A chat completion with this reply."""
    return 200, {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": finish}]}


@contextlib.contextmanager
def serving(answer: Callable[[int, dict[str, Any]], Answer]) -> Iterator[JudgeServer]:
    """A server for the length of a `with` block."""
    server = JudgeServer(answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
