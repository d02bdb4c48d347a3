"""What became of each trial of a sweep: the run folders tell, and `trials.json` says why a trial failed."""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from framework.analysis.sweep_columns import COMPLETE
from framework.analysis.sweep_table import TrialRecord
from framework.artifacts import write_text
from framework.errors import UserError
from framework.sweep import Trial

TRIALS_FILE = "trials.json"
STOPPED_FILE = "stopped_early.txt"
"""In the run folder of a trial that the scheduler stopped."""


class Ledger:
    """What became of each trial: `trials.json`, and before it the run folders themselves."""

    def __init__(self, out: Path, trials: Iterable[Trial]) -> None:
        self.out, self.path = out, out / TRIALS_FILE
        before = self._read()
        self.states = {trial.id: (trial, *self._state(trial, before)) for trial in trials}
        self.has_lost_runs = any(
            before.get((trial.name, trial.seed), ("", None))[0] in COMPLETE and not self.run(trial).is_dir()
            for trial, _, _ in self.states.values()
        )
        """Whether the run folder of a trial that was done is not there any more."""

    @property
    def waiting(self) -> list[Trial]:
        """The trials that are to be run."""
        return [trial for trial, status, _ in self.states.values() if status not in COMPLETE]

    def run(self, trial: Trial) -> Path:
        """The run folder of a trial."""
        return self.out / f"seed_{trial.seed}" / trial.name / "train"

    def note(self, trial: Trial, status: str, error: str | None) -> TrialRecord:
        """Write down what became of a trial, as far as its run folder does not tell."""
        if status == "stopped" and not self._ended(trial):
            self.run(trial).mkdir(parents=True, exist_ok=True)
            write_text(self.run(trial) / STOPPED_FILE, "ended early by the scheduler of its sweep\n")
        state = self._ended(trial) or status, error
        self.states[trial.id] = (trial, *state)
        self.write()
        return self._record(trial, *state)

    def records(self) -> list[TrialRecord]:
        """All trials, in their order."""
        return [self._record(*state) for state in self.states.values()]

    def write(self) -> None:
        """Write `trials.json`, where it has changed."""
        rows = [
            {
                "trial": record.trial,
                "method": record.method,
                "budget": record.budget,
                "seed": record.seed,
                "settings": record.settings,
                "status": record.status,
                "run": record.run and str(record.run.relative_to(self.out)),
                "error": record.error,
            }
            for record in self.records()
        ]
        text = json.dumps({"trials": rows}, indent=2) + "\n"
        if not self.path.is_file() or self.path.read_text() != text:
            write_text(self.path, text)

    def _record(self, trial: Trial, status: str, error: str | None) -> TrialRecord:
        run = self.run(trial)
        return TrialRecord(
            trial=trial.name,
            method=trial.method,
            budget=trial.budget,
            seed=trial.seed,
            settings=trial.settings,
            status=status,  # type: ignore[arg-type] # one of the four words
            run=run if _has_step(run) else None,
            error=error,
        )

    def _state(
        self, trial: Trial, before: dict[tuple[str, int], tuple[str, str | None]]
    ) -> tuple[str, str | None]:
        ended = self._ended(trial)
        if ended:
            return ended, None
        status, error = before.get((trial.name, trial.seed), ("unfinished", None))
        return (status, error) if status == "failed" else ("unfinished", None)

    def _ended(self, trial: Trial) -> str | None:
        """How a trial ended, as its run folder tells; None where it has yet to come to its end."""
        run = self.run(trial)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a cut summary is written again
            ended = json.loads((run / "summary.json").read_text())["ended"]
            return "finished" if ended == "all steps" else "stopped"
        return "stopped" if (run / STOPPED_FILE).is_file() else None

    def _read(self) -> dict[tuple[str, int], tuple[str, str | None]]:
        """Status and error of each trial, as written down before."""
        if not self.path.is_file():
            return {}
        try:
            rows = json.loads(self.path.read_text())["trials"]
            return {(row["trial"], row["seed"]): (row["status"], row["error"]) for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.path} cannot be read ({type(error).__name__}: {error}): delete it, the runs tell what is done"
            ) from error


def _has_step(run: Path) -> bool:
    """Whether a run has logged a step: a kill may cut even the first line."""
    try:
        with (run / "metrics.jsonl").open() as file:
            return file.readline().endswith("\n")
    except OSError:
        return False
