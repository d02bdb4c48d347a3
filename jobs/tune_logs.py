"""Tune's own logs of a trial, gone on with where an earlier session of the sweep left them."""

import csv
from pathlib import Path
from typing import Any

from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback


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
