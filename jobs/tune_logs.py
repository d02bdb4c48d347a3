"""What Tune is told of a trial's steps, and its own logs of them, gone on with where an earlier session left them."""

import contextlib
import csv
import queue
import threading
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback

MOST_AHEAD = 4
"""Steps that a trial may be ahead of what Tune has been told."""


class Reporter:
    """Gives Tune the numbers of a step while the next steps run: Tune takes 20 ms for its logs, and waits for a disk."""

    def __init__(self) -> None:
        self.stopped = False
        """Whether the scheduler has ended this trial."""
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(MOST_AHEAD)
        self._thread = threading.Thread(target=self._report, daemon=True)
        self._thread.start()

    def show(self, step: int, metrics: dict[str, Any]) -> None:
        """Take the numbers of a step: the same keys every time, for a table has one head."""
        self._put({name: value for name, value in metrics.items() if not isinstance(value, list | dict)})

    def close(self) -> None:
        """Wait until Tune has been told everything."""
        self._put(None)
        self._thread.join()

    def _put(self, metrics: dict[str, Any] | None) -> None:
        while not self.stopped:
            with contextlib.suppress(queue.Full):
                return self._waiting.put(metrics, timeout=0.1)

    def _report(self) -> None:
        try:
            while (metrics := self._waiting.get()) is not None:
                tune.report(metrics)
        except SystemExit:  # Tune's word for an end
            self.stopped = True


class JsonLog(JsonLoggerCallback):
    """Tune's `result.json`, a line a step."""

    def _restore_from_remote(self, file_name: str, trial: Any) -> None:
        _bring_back(file_name, trial)


class CsvLog(CSVLoggerCallback):
    """Tune's `progress.csv`, a row a step under one head."""

    def _restore_from_remote(self, file_name: str, trial: Any) -> None:
        _bring_back(file_name, trial)

    def _setup_trial(self, trial: Any) -> None:
        super()._setup_trial(trial)
        if self._trial_continue[trial]:
            # Tune writes the columns in the order of the numbers that it is given now, under the head of before.
            with Path(self._trial_files[trial].name).open(newline="") as before:
                self._trial_csv[trial] = csv.DictWriter(self._trial_files[trial], next(csv.reader(before)))


def _bring_back(file_name: str, trial: Any) -> None:
    """Put what was kept of a trial's log where Tune writes it, but for a last line cut in half.

    Tune would do so only with a checkpoint of its own, and else copy a log that begins anew over the one that is kept.
    """
    here, kept = Path(trial.local_path, file_name), Path(trial.storage.trial_fs_path, file_name)
    if not here.exists() and kept.is_file():  # what is there already is of this session, and newer
        whole, newline, _ = kept.read_bytes().rpartition(b"\n")
        here.write_bytes(whole + newline)
