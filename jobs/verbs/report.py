"""`goldilocks report`: write the report of a run or an experiment again, once or as it goes on."""

import math
import time
from pathlib import Path

from framework.analysis.run_folder import METRICS
from framework.errors import UserError
from jobs.experiment.run import EXPERIMENT_FILE, report_experiment
from jobs.verbs.experiment import print_experiment
from jobs.verbs.show import closing, console


def report(folder: Path, watch: float | None = None) -> int:
    """Write `report.html` into the folder; with `watch`, every so many seconds that new steps were logged, until the
    run or the experiment is over or Ctrl-C.

    A UserError where neither a run nor an experiment is there, or it has no step yet and is not watched.
    """
    is_experiment = (folder / EXPERIMENT_FILE).is_file()
    if not is_experiment and not (folder / (METRICS if watch is None else "config.yaml")).is_file():
        raise UserError(f"{folder} holds neither a run nor an experiment: give the folder that a verb printed")
    if watch is not None and not 0 < watch < math.inf:
        raise UserError(f"--every {watch:g}: give a number of seconds above 0")
    try:
        if watch is not None:
            _follow(folder, watch, is_experiment)
        if is_experiment:
            print_experiment(report_experiment(folder))
            return 0
        path = report_run(folder)
    except KeyboardInterrupt:
        if watch is None:
            raise
        path = folder / "report.html"
    closing(path)
    return 0


def report_run(folder: Path, live: bool = False) -> Path:
    """The path of the report on one run, written into its folder."""
    # Imported here: a run begins seconds sooner without statistics and charts.
    from framework.analysis.experiment import analyse
    from framework.analysis.table import build_table, record_of
    from framework.report import write_report

    record = record_of(folder)
    return write_report(analyse(f"Run: {record.run}", build_table([record]), [record]), folder, live)


def _follow(folder: Path, every: float, is_experiment: bool) -> None:
    """Write the page whenever steps were logged, until nothing goes on."""
    from framework.analysis.table import record_of

    pattern, seen = "seed_*/*/train/" if is_experiment else "", (-1, -1)
    while True:
        logged = sum(path.stat().st_size for path in folder.glob(f"{pattern}{METRICS}"))
        state = logged, len(list(folder.glob(f"{pattern}summary.json")))
        if state != seen and logged:
            seen = state
            if is_experiment:
                result = report_experiment(folder, live=True)
                path, is_over = result.report, not result.interrupted
            elif not (is_over := record_of(folder).status != "unfinished"):
                path = report_run(folder, live=True)
            if is_over:
                return
            console.print(f"written: {path}")
        time.sleep(every)
