"""`goldilocks report`: write the report of a run or a study again."""

from pathlib import Path

from framework.errors import UserError
from framework.report.html import write_run_report
from jobs.study import STUDY_FILE, StudyResult, finish_study, finished_runs
from jobs.verbs.show import closing


def report(folder: Path) -> int:
    """Write `report.html` into the folder."""
    if (folder / STUDY_FILE).is_file():
        runs = finished_runs(folder)
        if not any(runs.values()):
            raise UserError(
                f"{folder} holds a study without a finished run: run `goldilocks study` again to go on"
            )
        result = StudyResult(folder, runs)
        finish_study(result)
        closing(result.report)
        return 0
    if not (folder / "metrics.jsonl").is_file():
        raise UserError(f"{folder} holds neither a run nor a study: give the folder that a verb printed")
    closing(write_run_report(folder))
    return 0
