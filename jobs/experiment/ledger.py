"""What became of each run of an experiment: the run folders tell, and `runs.json` says why a run failed."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from framework.analysis.records import COMPLETE, RunRecord, Status
from framework.analysis.run_folder import METRICS, STOPPED_FILE, status_of
from framework.artifacts import MANIFEST, update_text, write_text
from framework.errors import UserError
from jobs.experiment.plan import PlannedRun
from jobs.run_folder import differences

RUNS_FILE = "runs.json"


class Ledger:
    """What became of each run: `runs.json`, and before it the run folders themselves."""

    def __init__(self, out: Path, plan: Iterable[PlannedRun]) -> None:
        self.out, self.path = out, out / RUNS_FILE
        self.plan = {run.id: run for run in plan}
        self._before = self._read()
        self._states = {id: self._state(run) for id, run in self.plan.items()}

    @property
    def has_lost_runs(self) -> bool:
        """Whether the folder of a run that was done before is not there any more."""
        gone = (run.place for run in self.plan.values() if not self.folder(run).is_dir())
        return any(self._before.get(place, ("", None))[0] in COMPLETE for place in gone)

    def assert_same_runs(self) -> None:
        """Refuse a configuration that is not the one that the folder's runs were made by."""
        planned = {run.place for run in self.plan.values()}
        if lost := [f"{name}, seed {seed}" for name, seed in self._before if (name, seed) not in planned]:
            raise UserError(
                f"{self.out} holds {len(lost)} runs that its configuration does not ask for ({lost[0]}): put that back as "
                "it was, or choose another --out"
            )
        for run in self.plan.values():
            folder = self.folder(run)
            if (folder / MANIFEST).is_file() and (told := differences(folder, run.cfg)):
                what = f"{folder} was not made by this configuration ({told})"
                raise UserError(f"{what}: put that back, or delete the run")

    @property
    def waiting(self) -> list[PlannedRun]:
        """The runs that are to be run."""
        return [self.plan[id] for id, (status, _) in self._states.items() if status not in COMPLETE]

    def folder(self, run: PlannedRun) -> Path:
        """The folder of a run."""
        return self.out / f"seed_{run.record.seed}" / run.record.run / "train"

    def note(self, run: PlannedRun, status: Status, error: str | None) -> RunRecord:
        """Write down what became of a run, as far as its folder does not tell."""
        folder = self.folder(run)
        if status == "stopped" and status_of(folder) == "unfinished":
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / STOPPED_FILE, "ended early by the scheduler of its experiment\n")
        told = status_of(folder)
        self._states[run.id] = status if told == "unfinished" else told, error
        self.write()
        return self._record(run)

    def records(self) -> list[RunRecord]:
        """All runs, in their order."""
        return [self._record(run) for run in self.plan.values()]

    def write(self) -> None:
        """Write `runs.json`, where it has changed."""
        records = self.records()
        folders = (record.folder and str(record.folder.relative_to(self.out)) for record in records)
        rows = [vars(record) | {"folder": folder} for record, folder in zip(records, folders, strict=True)]
        update_text(self.path, json.dumps({"runs": rows}, indent=2) + "\n")

    def _record(self, run: PlannedRun) -> RunRecord:
        (status, error), folder = self._states[run.id], self.folder(run)
        return replace(run.record, status=status, error=error, folder=folder if _has_step(folder) else None)

    def _state(self, run: PlannedRun) -> tuple[Status, str | None]:
        told = status_of(self.folder(run))
        if told in COMPLETE:
            return told, None
        status, error = self._before.get(run.place, ("unfinished", None))
        return (status, error) if status == "failed" else ("unfinished", None)

    def _read(self) -> dict[tuple[str, int], tuple[Status, str | None]]:
        """Status and error of each run, as written down before."""
        if not self.path.is_file():
            return {}
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))["runs"]
            return {(row["run"], row["seed"]): (row["status"], row["error"]) for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise UserError(f"{self.path} cannot be read ({why}): delete it, the runs tell what is done") from error


def _has_step(folder: Path) -> bool:
    """Whether a run has logged a row: a kill may cut even the first line."""
    try:
        with (folder / METRICS).open(encoding="utf-8") as file:
            return file.readline().endswith("\n")
    except OSError:
        return False
