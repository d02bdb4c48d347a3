"""The online method: four roles, and the loop over them."""

import contextlib
from pathlib import Path

from framework.data.prompts import PromptStream
from framework.trackers import TrackedRun, Tracking
from jobs.checkpoint import Checkpoints
from jobs.driver import train_policy
from jobs.roles import open_roles
from jobs.run_folder import RunContext, RunInputs, RunResult, pointing_back
from jobs.run_log import RunLog, check_log
from jobs.run_state import RunState


def make(inputs: RunInputs, run: Path, context: RunContext) -> RunResult:
    """Train from the newest sound checkpoint in the run folder, or from step 0, to the end or to a stop.

    A PlacementError where the layout does not fit the cluster; a RunError where a role failed, which says where the run
    can go on from.
    """
    cfg, train = inputs.cfg, inputs.cfg.train
    checkpoints = Checkpoints(run, train.keep_checkpoints)
    found, messages = checkpoints.latest()
    if messages and not found:
        messages.append("no sound checkpoint was left: began again at step 0")
    checkpoint, state = found or (None, RunState.start(train))
    messages += check_log(run, state.step)
    if not state.ended(train):
        prompts = PromptStream(cfg.world.prompts("train"), cfg.seed)
        folders = {name: parent.path for name, parent in inputs.parents.items()}
        tracked = TrackedRun(run, _run_name(run), cfg.model_dump(mode="json"), state.step)
        with (
            contextlib.closing(Tracking(cfg.trackers, tracked)) as tracking,
            open_roles(cfg, _run_name(run), folders, context.address, context.in_placement) as roles,
            pointing_back(run, checkpoints.newest),
        ):
            if checkpoint:
                roles.policy.load(checkpoint).get()
            _drop_later_rollouts(run, state.step)
            log = RunLog(run, roles, state.step, context.show, tracking)
            state = train_policy(cfg, roles, prompts, log, checkpoints, state, context.stop_asked)
    return RunResult(run, state.ended(train), tuple(messages))


def _run_name(run: Path) -> str:
    """Of a run in Ray's dashboard: where it stands, as far as it takes to tell runs apart."""
    return "-".join(part for part in run.resolve().parts[-4:] if part not in ("train", "/"))


def _drop_later_rollouts(run: Path, start_step: int) -> None:
    for path in (run / "rollouts").glob("step_*.parquet"):
        if int(path.stem.removeprefix("step_")) >= start_step:
            path.unlink()
