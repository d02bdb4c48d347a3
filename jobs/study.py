"""`goldilocks study`: the chain fit-policy, label, fit-reward, train for every variant and seed, then a report."""

import itertools
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framework.analysis.comparison import POOL_LINK, Comparison, compare_runs
from framework.analysis.curves import load_run
from framework.analysis.summary import summarise_runs
from framework.artifacts import Artifact, write_text
from framework.config import Config, load_config
from framework.errors import UserError
from framework.report.html import write_study_report
from framework.training.policy_fit import Progress
from jobs.best_of_n import SCORES_FILE, pool_stage, scores_stage
from jobs.labelling import pairs_stage
from jobs.reward_trainer import fitting_beside
from jobs.stages import check_prompts, policy_stage, reward_stage
from jobs.study_runners import Runners, open_runners
from jobs.train import RunResult
from jobs.workspace import Workspace

STUDY_FILE = "study.yaml"


@dataclass(frozen=True)
class StudyView:
    """Where a study shows its progress; the default shows nothing."""

    stage: Callable[[str], Progress | None] = lambda name: None
    """Told a stage's title, gives what its progress is reported to."""
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

    cfg: Config
    name: str
    run: Path
    policy: Artifact
    reward: Artifact
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
    _claim(cfg, out)
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
                _score_pool(started, view)
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
    result.summary = summarise_runs(runs)
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
    workspace = Workspace(run.parent.parent)
    title = f"seed {cfg.seed}"
    policy = policy_stage(cfg, workspace, view.stage(f"{title}: fit-policy"))
    pairs = pairs_stage(cfg, workspace, policy, view.stage(f"{title}: label"))
    fitted = view.stage(f"{title}: fit-reward {name}")
    reward = reward_stage(cfg, workspace, policy, pairs, fitted, fitting_beside(cfg, runners.address))
    future = runners.submit(cfg, run, policy, reward, view.run(f"{title}: train {name}", cfg.steps))
    return _Begun(cfg, name, run, policy, reward, future)


def _score_pool(begun: _Begun, view: StudyView) -> None:
    """Sample the best-of-n pool of a run's start policy, score it by the run's reward, and note where that is."""
    cfg, run = begun.cfg, begun.run
    if cfg.best_of_n is None:
        return
    workspace = Workspace(run.parent.parent)
    title = f"seed {cfg.seed}: best-of-n"
    pool = pool_stage(cfg, workspace, begun.policy, view.stage(f"{title} pool"))
    scores = scores_stage(cfg, workspace, pool, begun.reward, view.stage(f"{title} scores {begun.name}"))
    run.parent.mkdir(parents=True, exist_ok=True)  # the run itself may still be waiting its turn
    link, path = run.parent / POOL_LINK, os.path.relpath(scores.path / SCORES_FILE, run.parent)
    record = {"scores": path, "sha256": scores.sha256, "ns": cfg.best_of_n.counts}
    text = json.dumps(record, indent=2) + "\n"
    if not link.is_file() or link.read_text() != text:
        write_text(link, text)


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
        RunResult(started.run, False, None) if started.future.cancelled() else started.future.result()
        for started in begun
    ]


def _raise_failure(begun: list[_Begun]) -> None:
    """Raise what stopped a run, now and not after all the others have begun."""
    for started in begun:
        if started.future.done() and not started.future.cancelled():
            started.future.result()


def _claim(cfg: Config, out: Path) -> None:
    """Make the folder this study's own, or see that it is."""
    text = cfg.to_yaml()
    path = out / STUDY_FILE
    try:
        if path.exists():
            before = load_config(path)
            if _identity(before) != _identity(cfg):
                raise UserError(
                    f"{out} holds a study of another configuration: choose another --out, or delete it"
                )
        elif out.exists() and any(out.iterdir()):
            raise UserError(f"{out} is not empty and holds no study: choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        if not os.access(out, os.W_OK):
            raise UserError(f"cannot write {out}: permission denied; choose another --out")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out") from error


def _identity(cfg: Config) -> tuple[Any, ...]:
    return cfg.fingerprint(), cfg.variants, cfg.conditions, cfg.baseline
