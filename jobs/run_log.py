"""What a run writes as it goes: metrics, timings and rollouts, and what its trackers are told.

`metrics.jsonl` holds nothing that depends on the clock, so that two runs of one configuration write the same bytes;
seconds and memory go to `timings.jsonl`.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from framework.analysis.alarms import SIGNALS, warnings_of
from framework.analysis.run_folder import METRICS, gaps, read_record, told
from framework.artifacts import write_text
from framework.errors import RunError, UserError
from framework.measurement import Measurement
from framework.trackers import Tracking
from framework.training.policy_update import UpdateReport
from framework.types import Shaped
from jobs.roles import Roles
from jobs.run_state import RunState

TIMINGS = "timings.jsonl"
LOGS = METRICS, TIMINGS


class RunLog:
    """Appends one step at a time to the files of a run folder."""

    def __init__(
        self,
        run: Path,
        roles: Roles,
        start_step: int = 0,
        show: Callable[[int, dict[str, Any]], None] | None = None,
        tracking: Tracking | None = None,
    ) -> None:
        self.run, self.roles, self.show, self.tracking = run, roles, show, tracking
        (run / "rollouts").mkdir(parents=True, exist_ok=True)
        logged, timed = (_truncated(run / name, start_step) for name in LOGS)
        if tracking:
            tracking.catch_up(logged, timed)
        self.history = [_signals(record) for record in logged]
        """The signals that may warn, of every step so far."""
        self.began = time.perf_counter()

    def step(self, state: RunState, measured: Measurement, shaped: Shaped, report: UpdateReport) -> None:
        """Write one step down."""
        figures = measured.figures(shaped.reward, shaped.kl_coef)
        metrics: dict[str, Any] = {"step": state.step} | figures | report.metrics
        self.history.append(_signals(metrics))
        metrics["warnings"] = warnings_of(self.history)
        started = time.perf_counter()
        self._append(METRICS, metrics)
        rollout = self.run / "rollouts" / f"step_{state.step:06d}.parquet"
        with _writing(rollout):
            pq.write_table(measured.rows(shaped.reward), rollout)
        now = time.perf_counter()
        timings = self.roles.timings(state.step, step_seconds=now - self.began, log_seconds=now - started)
        tokens = int(measured.rollout.mask.sum())
        self._append(TIMINGS, {"step": state.step, "tokens": tokens} | timings)
        self.began = now
        if self.tracking:
            self.tracking.step(state.step, metrics, timings)
        if self.show:
            self.show(state.step, metrics)

    def _append(self, name: str, record: dict[str, Any]) -> None:
        with _writing(self.run / name), (self.run / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"could not write {path}: {error.strerror or error}; free some space and resume") from error


def _signals(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record.get(name) for name in ("step", *(signal.name for signal in SIGNALS))}


def check_log(run: Path, start_step: int) -> list[str]:
    """What is to be told of the log of a run that has made `start_step` steps: those that have no record.

    A UserError where a line is damaged, or of a step that was there already.
    """
    logged, _ = (_lines_before(run / name, start_step) for name in LOGS)
    missing = gaps(logged, start_step)
    return [f"{run / METRICS} has no record of {told(missing)}: summary and report tell of the gap"] if missing else []


def _truncated(path: Path, start_step: int) -> list[dict[str, Any]]:
    """The records before `start_step`; the lines of steps that will be run again, and one cut in half, are dropped."""
    kept = _lines_before(path, start_step).values()
    text = b"".join(line + b"\n" for line in kept)
    if path.exists() and path.read_bytes() != text:
        write_text(path, text.decode())
    return [json.loads(line) for line in kept]


def _lines_before(path: Path, start_step: int) -> dict[int, bytes]:
    """The lines of the steps before `start_step`, in their order."""
    kept: dict[int, bytes] = {}
    last, lines = -1, path.read_bytes().split(b"\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            step = read_record(line, path, number)["step"]
        except UserError:
            if number == len(lines):  # a kill cut it in half
                break
            raise
        if step >= start_step:
            continue
        if step <= last:
            raise UserError(
                f"{path}, line {number}: step {step} stands after step {last}, as where two commands wrote at once; delete the "
                "lines that are not of this run"
            )
        kept[step], last = line, step
    return kept
