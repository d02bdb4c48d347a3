"""`goldilocks study`: the chain fit-policy, label, fit-reward, train for every variant and seed, then a report."""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.plan import bundles, capacity
from cluster.session import connect
from cluster.spec import load_spec
from framework.analysis.summary import summarise_study
from framework.artifacts import write_text
from framework.config import Config, load_config
from framework.errors import UserError
from framework.report.html import write_study_report
from framework.training.policy_fit import Progress
from jobs.stages import check_prompts, pairs_stage, policy_stage, reward_stage
from jobs.train import RunContext, RunResult, start_run
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
    report: Path | None = None


def run_study(
    cfg: Config, out: Path, stop_asked: Callable[[], bool], view: StudyView, address: str | None = None
) -> StudyResult:
    """Every variant and seed, what is finished already left alone; then the report.

    Runs go side by side, as many as the cluster holds whole, while this process fits the next reward
    models. No number depends on how many.

    Raises:
        UserError: the folder holds another study, or there is no variant to run.
    """
    variants = cfg.variants or {"run": {}}
    cfg = cfg.model_copy(update={"variants": variants})
    for name in variants:
        check_prompts(cfg.variant(name, cfg.seeds[0]))  # every variant is checked before anything runs
    _claim(cfg, out)
    result = StudyResult(out, runs={name: {} for name in variants})
    failed = threading.Event()
    with _sessions(cfg, address) as at_once, ThreadPoolExecutor(at_once) as pool:
        waiting: list[Future[RunResult]] = []
        try:
            for seed in cfg.seeds:
                for name in variants:
                    if stop_asked() or failed.is_set():
                        break
                    run = out / f"seed_{seed}" / name / "train"
                    result.runs[name][seed] = run
                    waiting.append(
                        _begin(
                            cfg.variant(name, seed),
                            name,
                            run,
                            pool,
                            lambda: stop_asked() or failed.is_set(),
                            view,
                            address,
                        )
                    )
            finished = [future.result().finished for future in waiting]
        except BaseException:
            failed.set()  # the other runs save a checkpoint and stop
            raise
    result.finished = all(finished) and len(waiting) == len(variants) * len(cfg.seeds)
    if result.finished:
        finish_study(result)
    return result


def finish_study(result: StudyResult) -> None:
    """Write the study's summary and report from its finished runs."""
    result.summary = summarise_study(result.runs)
    write_text(result.out / "summary.json", json.dumps(result.summary, indent=2) + "\n")
    result.report = write_study_report(result.out, result.runs)


def finished_runs(out: Path) -> dict[str, dict[int, Path]]:
    """The finished runs of the study in a folder, by variant and seed."""
    cfg = load_config(out / STUDY_FILE)
    return {
        name: {
            seed: run
            for seed in cfg.seeds
            if ((run := out / f"seed_{seed}" / name / "train") / "summary.json").is_file()
        }
        for name in cfg.variants
    }


def _begin(
    cfg: Config,
    name: str,
    run: Path,
    pool: ThreadPoolExecutor,
    stop_asked: Callable[[], bool],
    view: StudyView,
    address: str | None,
) -> Future[RunResult]:
    """Make what a run starts from, here and now, and hand the run to the pool."""
    workspace = Workspace(run.parent.parent)
    title = f"seed {cfg.seed}"
    policy = policy_stage(cfg, workspace, view.stage(f"{title}: fit-policy"))
    pairs = pairs_stage(cfg, workspace, policy, view.stage(f"{title}: label"))
    reward = reward_stage(cfg, workspace, policy, pairs, view.stage(f"{title}: fit-reward {name}"))
    context = RunContext(stop_asked, view.run(f"{title}: train {name}", cfg.steps), address)
    begun = pool.submit(start_run, cfg, run, policy, reward, context)
    if cfg.backend == "inline":
        # The next fit shares this process, and with it torch's global generator: one after the other.
        begun.exception()
    return begun


def _claim(cfg: Config, out: Path) -> None:
    """Make the folder this study's own, or see that it is."""
    text = cfg.to_yaml()
    path = out / STUDY_FILE
    try:
        if path.exists():
            before = load_config(path)
            if (before.fingerprint(), before.variants) != (cfg.fingerprint(), cfg.variants):
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


@contextlib.contextmanager
def _sessions(cfg: Config, address: str | None) -> Iterator[int]:
    """One Ray session for all runs of the study; gives how many of them fit at a time."""
    if cfg.backend == "inline":
        yield 1
        return
    spec = load_spec(cfg.cluster)
    with connect(address, spec, namespace="study") as session:
        yield max(1, capacity(bundles(spec), session.nodes()))
