"""`goldilocks report`: write the report of a run, a study or a sweep again."""

from pathlib import Path

from framework.errors import UserError
from framework.report.html import write_run_report
from jobs.study import STUDY_FILE, StudyResult, finish_study, finished_runs
from jobs.sweep import SWEEP_FILE, report_sweep
from jobs.verbs.show import closing
from jobs.verbs.sweep import print_sweep


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
    if (folder / SWEEP_FILE).is_file():
        print_sweep(report_sweep(folder))
        return 0
    if not (folder / "metrics.jsonl").is_file():
        raise UserError(
            f"{folder} holds neither a run nor a study nor a sweep: give the folder that a verb printed"
        )
    closing(write_run_report(folder))
    return 0
