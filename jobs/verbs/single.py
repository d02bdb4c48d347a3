"""The single stages and `goldilocks train`. A verb first makes what it needs and does not find."""

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.spec import load_spec
from framework.artifacts import write_text
from framework.config import Config
from framework.models.reward_model import RewardModel
from framework.report.html import write_run_report
from framework.training.reward_fit import compare_on, policy_responses
from jobs.artifact_stage import device
from jobs.labelling import pairs_stage
from jobs.reward_job import Runner, fit_here
from jobs.reward_trainer import fitting_beside, on_ray_train
from jobs.stages import check_prompts, policy_stage, reward_chain, reward_stage
from jobs.train import RunContext, RunResult, resume_run, start_run, stored_config
from jobs.verbs.show import bars, closing, console
from jobs.workspace import Workspace

INTERRUPTED = 130


def stage(verb: str, cfg: Config, out: Path, words: Sequence[str], address: str | None) -> int:
    """`fit-policy`, `label` or `fit-reward`; `words` are the command line, for the next command to run."""
    workspace = Workspace(out)
    source = cfg.fit_reward.compare_on if verb == "fit-reward" else None
    compared = (
        policy_responses(source) if source else None
    )  # before a fit is spent on a table that cannot be read
    with bars() as shown:
        if verb == "fit-reward":
            made, then = reward_chain(cfg, workspace, shown.stage, _runner(cfg, address)), "train"
        else:
            made, then = policy_stage(cfg, workspace, shown.stage("fit-policy")), "label"
            if verb == "label":
                made, then = pairs_stage(cfg, workspace, made, shown.stage("label")), "fit-reward"
    for name, value in made.figures.items():
        console.print(f"{name}: {value:.4g}")
    if compared:
        _compare(cfg, made.path, compared, out)
    closing(made.path, shlex.join(["goldilocks", then, *words, "--out", str(out)]))
    return 0


def _compare(cfg: Config, reward: Path, texts: tuple[list[str], list[str]], out: Path) -> None:
    """Print, and write to `compare_on.json`, how the heads agree on a trained policy's responses."""
    figures = compare_on(RewardModel.load(reward, device(), rows=cfg.scorer_rows), *texts)
    for name, value in figures.items():
        console.print(f"{name}: {'not defined' if value is None else format(value, '.4g')}")
    write_text(out / "compare_on.json", json.dumps(figures, indent=2) + "\n")


def _runner(cfg: Config, address: str | None) -> Runner:
    """`fit-reward` fits on Ray Train, with as many workers as the layout gives it; inline, here."""
    return fit_here if cfg.backend == "inline" else on_ray_train(load_spec(cfg.cluster), address)


def train(cfg: Config, out: Path, stop: Callable[[], bool], address: str | None) -> int:
    """`goldilocks train CONFIG`: the stages that are missing, then the run in `out/train`."""
    workspace = Workspace(out)
    check_prompts(cfg)
    with bars() as shown:
        policy = policy_stage(cfg, workspace, shown.stage("fit-policy"))
        pairs = pairs_stage(cfg, workspace, policy, shown.stage("label"))
        fitted = shown.stage("fit-reward")
        reward = reward_stage(cfg, workspace, policy, pairs, fitted, fitting_beside(cfg, address))
        context = RunContext(stop, shown.run("train", cfg.steps), address)
        result = start_run(cfg, out / "train", policy, reward, context)
    return _end(result)


def resume(run: Path, stop: Callable[[], bool], address: str | None) -> int:
    """`goldilocks train --resume RUN`."""
    steps = stored_config(run).steps
    with bars() as shown:
        result = resume_run(run, RunContext(stop, shown.run("train", steps), address))
    return _end(result)


def _end(result: RunResult) -> int:
    for message in result.messages:
        console.print(message)
    if not result.finished or result.summary is None:
        closing(result.run, f"goldilocks train --resume {result.run}")
        return INTERRUPTED
    for name in ("proxy_start", "proxy_final", "gold_start", "gold_peak", "gold_final", "kl_nats_final"):
        if result.summary[name] is not None:
            console.print(f"{name}: {result.summary[name]:.3f}")
    closing(write_run_report(result.run), f"goldilocks report {result.run}")
    return 0
