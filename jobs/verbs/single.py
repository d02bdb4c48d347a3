"""The single stages and `goldilocks train`. A verb first makes what it needs and does not find."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framework.artifacts import write_text, writing
from framework.config import Config
from framework.data.tables import read_labelled
from framework.errors import UserError
from framework.gold.ngram import fit_ngram
from framework.models.reward_model import RewardModel
from framework.training.reward_fit import compare_on, policy_responses
from jobs.artifact_stage import device
from jobs.chain import Chain
from jobs.fit_job import Runner, fit_here
from jobs.fit_on_ray import fitting_beside, on_ray_train
from jobs.layouts import load_layout
from jobs.run_folder import STEPS, RunContext, RunResult, make_run, resume_run, stored_config
from jobs.stages import check_prompts
from jobs.stop import StopSignal
from jobs.verbs.report import report_run
from jobs.verbs.show import INTERRUPTED, bars, closing, console
from jobs.workspace import working_in

STAGES = {"fit-policy": ("policy", "label"), "label": ("pairs", "fit-reward"), "fit-reward": ("reward", "train")}
"""Of each verb: the stage of the chain that it makes, and the verb that comes next."""


def stage(verb: str, cfg: Config, out: Path, words: Sequence[str], stop: StopSignal, address: str | None) -> int:
    """`fit-policy`, `label` or `fit-reward`; `words` are the command line, for the next command to run."""
    source = cfg.fit_reward.compare_on if verb == "fit-reward" else None
    compared = policy_responses(source) if source else None  # before a fit is spent on a table that cannot be read
    name, then = STAGES[verb]
    with working_in(out), bars(stop) as shown:
        artifact = getattr(Chain(cfg, out, shown.stage, _runner(cfg, address)), name)
        if compared:
            _compare(cfg, artifact.path, compared, out)
    for figure, value in artifact.figures.items():
        console.print(f"{figure}: {value:.4g}")
    closing(artifact.path, shlex.join(["goldilocks", then, *words, "--out", str(out)]))
    return 0


def _compare(cfg: Config, reward: Path, texts: tuple[list[str], list[str], list[bool]], out: Path) -> None:
    """Print, and write to `compare_on.json`, how the heads agree on a trained policy's responses."""
    figures = compare_on(RewardModel.load(reward, device(), rows=cfg.scorer_rows, scorer=cfg.reward), *texts)
    for name, value in figures.items():
        console.print(f"{name}: {'not defined' if value is None else format(value, '.4g')}")
    write_text(out / "compare_on.json", json.dumps(figures, indent=2) + "\n")


def _runner(cfg: Config, address: str | None) -> Runner:
    """A verb that fits does so on Ray Train, with as many workers as the layout gives it; inline, here."""
    return fit_here if cfg.backend == "inline" else on_ray_train(load_layout(cfg.cluster), address)


def fit_gold(cfg: Config, out: Path) -> int:
    """Fit an n-gram gold scorer to text that nothing else sees, print held-out figures, and say how to use it."""
    if cfg.fit_gold is None or cfg.fit_gold.source is None:
        raise UserError("fit_gold is not set: name labelled text, for example fit_gold.source.path=reviews.parquet")
    texts, labels = read_labelled(cfg.fit_gold.source)
    path = out / "gold"
    with working_in(out), writing(path) as scratch:
        figures = fit_ngram(texts, labels, scratch, cfg.fit_gold, cfg.seed)
    for name, value in figures.items():
        console.print(f"{name}: {value:.4g}")
    closing(path, f"goldilocks train ... gold.kind=ngram gold.path={path}")
    return 0


def train(cfg: Config, out: Path, stop: StopSignal, address: str | None) -> int:
    """`goldilocks train CONFIG`: the stages that are missing, then the run in `out/train`."""
    check_prompts(cfg)
    for tracker in cfg.trackers:
        tracker.assert_ready()
    with working_in(out), bars(stop) as shown:
        inputs = Chain(cfg, out, shown.stage, fitting_beside(cfg, address)).inputs
        context = RunContext(stop.between_steps, shown.run("train", cfg.train.length), address)
        result = make_run(inputs, out / "train", context)
    return _end(result, address)


def resume(run: Path, changes: Mapping[str, Any], stop: StopSignal, address: str | None) -> int:
    """`goldilocks train --resume RUN`, with what changes about it."""
    length = max(stored_config(run).train.length, int(changes.get(STEPS, 0)))
    with bars(stop) as shown:
        result = resume_run(run, RunContext(stop.between_steps, shown.run("train", length), address), changes)
    return _end(result, address)


def _end(result: RunResult, address: str | None) -> int:
    for message in result.messages:
        console.print(message)
    if result.ended is None:
        closing(result.run, f"goldilocks train --resume {result.run}{f' --address {address}' if address else ''}")
        return INTERRUPTED
    for name in ("proxy_start", "proxy_end", "gold_start", "gold_peak", "gold_end", "kl_nats_end"):
        if result.summary.get(name) is not None:
            console.print(f"{name}: {result.summary[name]:.3f}")
    closing(report_run(result.run), f"goldilocks report {result.run}")
    return 0
