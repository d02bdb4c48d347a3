"""SIGINT and SIGTERM: what is under way comes to where it can be gone on from, and ends."""

import signal
import sys
import threading
from typing import Any

GRACE_SECONDS = 5.0
"""That a stage has, once a stop was asked, to come to its next step."""


class StopSignal:
    """A run ends after the step under way, and saves; a stage at its next step, or after `GRACE_SECONDS` where it is.
    A second signal acts at once.
    """

    def __init__(self) -> None:
        self.asked = self._is_running = False
        self._hard: threading.Timer | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def between_steps(self) -> bool:
        """Whether to stop, asked by a run between two steps: from the first time on it ends by itself."""
        self._is_running = True
        self._forget()
        return self.asked

    def in_stage(self) -> None:
        """Ends a stage, once that was asked, by a KeyboardInterrupt between two of its steps."""
        if self.asked and not self._is_running:
            self._forget()
            raise KeyboardInterrupt

    def _ask(self, number: int, _frame: Any) -> None:
        if self.asked:
            self._forget()
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this step; once more stops at once", file=sys.stderr)
        if not self._is_running:
            # A signal, not an exception in this thread: it wakes what waits.
            self._hard = threading.Timer(GRACE_SECONDS, signal.pthread_kill, (threading.main_thread().ident, number))
            self._hard.daemon = True
            self._hard.start()

    def _forget(self) -> None:
        if self._hard:
            self._hard.cancel()
