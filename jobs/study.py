"""`goldilocks study`: the chain fit-policy, label, fit-reward, train for every variant and seed, then a report."""

import itertools
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framework.analysis.alarms import alarm_leads
from framework.analysis.comparison import Comparison, compare_runs
from framework.analysis.curves import load_run
from framework.analysis.summary import summarise_runs
from framework.artifacts import write_text
from framework.config import Config, load_config
from framework.report.html import write_study_report
from jobs.run_inputs import RunInputs, ShowStage, make_inputs, score_pool
from jobs.stages import check_prompts
from jobs.study_runners import Runners, open_runners
from jobs.train import RunResult
from jobs.workspace import claim

STUDY_FILE = "study.yaml"


@dataclass(frozen=True)
class StudyView:
    """Where a study shows its progress; the default shows nothing."""

    stage: ShowStage = lambda name: None
    run: Callable[[str, int], Callable[[int, dict[str, Any]], None] | None] = lambda name, steps: None
    """Told a run's title and its steps, gives what each step is reported to."""


@dataclass
class StudyResult:
    """How a study ended."""

    out: Path
    runs: dict[str, dict[int, Path]] = field(default_factory=dict)
    finished: bool = True
    summary: dict[str, Any] = field(default_factory=dict)
    comparison: Comparison | None = None
    """With the baseline, where the study names one."""
    report: Path | None = None


@dataclass(frozen=True)
class _Begun:
    """A run that was handed to the pool of threads, and what it started from."""

    inputs: RunInputs
    future: Future[RunResult]


def run_study(
    cfg: Config, out: Path, stop_asked: Callable[[], bool], view: StudyView, address: str | None = None
) -> StudyResult:
    """Every variant and seed, what is finished already left alone; then the report.

    Runs go side by side, as many as the cluster holds whole, while this process fits the next reward
    models. No number depends on how many.

    Raises:
        UserError: the folder holds another study, or there is no variant to run.
    """
    cfg = cfg.model_copy(update={"variants": cfg.variants or {"run": {}}})
    names = list(cfg.study_runs())
    for name in names:
        check_prompts(cfg.variant(name, cfg.seeds[0]))  # every variant is checked before anything runs
    claim(
        out / STUDY_FILE, cfg.to_yaml(), "study", lambda path: _identity(load_config(path)) == _identity(cfg)
    )
    result = StudyResult(out, runs={name: {} for name in names})
    failed = threading.Event()

    def halted() -> bool:
        return stop_asked() or failed.is_set()

    begun: list[_Begun] = []
    with open_runners(cfg, halted, address) as runners:
        try:
            for seed, name in itertools.product(cfg.seeds, names):
                runners.relay()
                if halted():
                    break
                _raise_failure(begun)
                run = result.runs[name][seed] = out / f"seed_{seed}" / name / "train"
                begun.append(_begin(cfg.variant(name, seed), name, run, runners, view))
            num_scored = 0
            for started in begun:  # last: meanwhile the runs have the other cores
                if halted():
                    break
                _raise_failure(begun)
                score_pool(started.inputs, view.stage)
                num_scored += 1
            finished = [result.finished for result in _wait(begun, runners, view)]
        except BaseException:
            failed.set()  # the other runs save a checkpoint and stop
            raise
    result.finished = all(finished) and num_scored == len(names) * len(cfg.seeds)
    if result.finished:
        finish_study(result)
    return result


def finish_study(result: StudyResult) -> None:
    """Write the study's summary and report from its finished runs, without running anything."""
    cfg = load_config(result.out / STUDY_FILE)
    runs = {
        name: {seed: load_run(run) for seed, run in seeds.items()}
        for name, seeds in result.runs.items()
        if seeds
    }
    leads = alarm_leads({name: list(seeds.values()) for name, seeds in runs.items()})
    result.summary = summarise_runs(runs) | {"warning_leads": [lead.to_json() for lead in leads]}
    if cfg.baseline is not None:
        result.comparison = compare_runs(runs, cfg.study_layout(), cfg.baseline)
        result.summary["comparison"] = result.comparison.to_json()
    write_text(result.out / "summary.json", json.dumps(result.summary, indent=2, allow_nan=False) + "\n")
    result.report = write_study_report(result.out, result.runs, result.comparison, cfg.study_layout())


def finished_runs(out: Path) -> dict[str, dict[int, Path]]:
    """The finished runs of the study in a folder, by variant and seed."""
    cfg = load_config(out / STUDY_FILE)
    return {
        name: {
            seed: run
            for seed in cfg.seeds
            if ((run := out / f"seed_{seed}" / name / "train") / "summary.json").is_file()
        }
        for name in cfg.study_runs()
    }


def _begin(
    cfg: Config,
    name: str,
    run: Path,
    runners: Runners,
    view: StudyView,
) -> _Begun:
    """Make what a run starts from, here and now, and hand the run to the pool."""
    inputs = make_inputs(cfg, name, run, view.stage, runners.address)
    show = view.run(f"seed {cfg.seed}: train {name}", cfg.steps)
    return _Begun(inputs, runners.submit(cfg, run, inputs.policy, inputs.reward, show))


def _wait(begun: list[_Begun], runners: Runners, view: StudyView) -> list[RunResult]:
    """The results of all runs; a wish to stop reaches them meanwhile."""
    show = view.stage("runs") or (lambda *_: None)
    waiting = {started.future for started in begun}
    while waiting:
        wait(waiting, timeout=0.2)
        # Asked one by one: `wait` never counts a future as done that was cancelled with its executor.
        waiting = {future for future in waiting if not future.done()}
        runners.relay()
        _raise_failure(begun)
        show(len(begun) - len(waiting), len(begun), {})
    return [
        RunResult(started.inputs.run, False, None) if started.future.cancelled() else started.future.result()
        for started in begun
    ]


def _raise_failure(begun: list[_Begun]) -> None:
    """Raise what stopped a run, now and not after all the others have begun."""
    for started in begun:
        if started.future.done() and not started.future.cancelled():
            started.future.result()


def _identity(cfg: Config) -> tuple[Any, ...]:
    return cfg.fingerprint(), cfg.variants, cfg.conditions, cfg.baseline
