"""`goldilocks train`: one online run, from a start policy and a reward model to a run folder."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from framework.analysis.summary import summarise_run
from framework.artifacts import MANIFEST, Artifact, code_version, hash_folder, read_manifest, write_text
from framework.config import Config, load_config
from framework.data.prompts import PromptStream
from framework.errors import GoldilocksError, RunError, UserError
from jobs.checkpoint import Checkpoints
from jobs.driver import train_policy
from jobs.roles import open_roles
from jobs.run_log import RunLog
from jobs.run_state import RunState

CONFIG, FINGERPRINT = "config.yaml", "fingerprint.txt"


@dataclass(frozen=True)
class RunContext:
    """What surrounds a run and changes none of its numbers."""

    stop_asked: Callable[[], bool] = lambda: False
    """Asked between steps; True saves a checkpoint and ends the run there."""
    show: Callable[[int, dict[str, Any]], None] | None = None
    """Told every step's number and metrics."""
    address: str | None = None
    """Of a Ray cluster; None attaches inside a submitted job and starts one here elsewhere."""
    seated: bool = False
    """Whether this process was started in a placement group that holds the layout: the roles then sit there."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    run: Path
    finished: bool
    """False after an interrupt: `goldilocks train --resume RUN` goes on."""
    summary: dict[str, Any] | None
    messages: tuple[str, ...] = ()


def start_run(
    cfg: Config,
    run: Path,
    policy: Artifact,
    reward: Artifact,
    context: RunContext,
) -> RunResult:
    """Train from the beginning, or go on where this very run stopped, on the backend and cluster of `cfg`.

    Raises:
        UserError: the folder holds another run, or cannot be written.
    """
    parents = {"policy": policy, "reward": reward}
    identity = _identity(cfg, parents)
    if _has_begun(run):
        if (run / FINGERPRINT).read_text().strip() != identity:
            raise UserError(f"{run} holds a run of another configuration: choose another --out, or delete it")
        return resume_run(run, context, {"backend": cfg.backend, "cluster": cfg.cluster})
    manifest = {
        "kind": "train",
        "fingerprint": identity,
        "parents": {
            name: {"path": str(parent.path.resolve()), "sha256": parent.sha256, "figures": parent.figures}
            for name, parent in parents.items()
        },
        "code_version": code_version(),
    }
    try:
        if run.exists() and any(not _is_beginning(path) for path in run.iterdir()):
            raise UserError(f"{run} is not empty and holds no run: choose another --out")
        run.mkdir(parents=True, exist_ok=True)
        write_text(run / CONFIG, cfg.to_yaml())
    except OSError as error:
        raise UserError(f"cannot write {run}: {error.strerror}; choose another --out") from error
    write_text(run / FINGERPRINT, identity + "\n")
    write_text(run / MANIFEST, json.dumps(manifest, indent=2) + "\n")  # last: from here on this is a run
    return _run(cfg, run, RunState.start(cfg), None, context, ())


def resume_run(run: Path, context: RunContext, placed: Mapping[str, Any] = MappingProxyType({})) -> RunResult:
    """Go on from the newest sound checkpoint; a finished run is only summarised again.

    Args:
        placed: `backend` and `cluster`, where it goes on elsewhere than it began.

    Raises:
        UserError: no run there, or one whose policy or reward model has changed since.
    """
    cfg = stored_config(run).model_copy(update=placed)
    for name, parent in read_manifest(run)["parents"].items():
        path = Path(parent["path"])
        if not path.is_dir():
            raise UserError(f"{run} needs its {name} at {path}, which is gone: put it back")
        if hash_folder(path) != parent["sha256"]:
            raise UserError(
                f"the {name} at {path} is not the one this run began with: KL and rewards would not compare"
            )
    found, messages = Checkpoints(run, cfg.keep_checkpoints).latest()
    if messages and not found:
        messages.append("no sound checkpoint was left: began again at step 0")
    checkpoint, state = found or (None, RunState.start(cfg))
    return _run(cfg, run, state, checkpoint, context, tuple(messages))


def _has_begun(run: Path) -> bool:
    return (run / MANIFEST).is_file() and (run / FINGERPRINT).is_file()


def _is_beginning(path: Path) -> bool:
    """Whether a file is one of those that a run writes before it has begun: a kill may leave some of them."""
    scratch = path.name.startswith(".") and path.name.endswith(".writing")
    return scratch or path.name in (CONFIG, FINGERPRINT, MANIFEST)


def stored_config(run: Path) -> Config:
    """The configuration of the run in a folder.

    Raises:
        UserError: no run there.
    """
    if not (run / MANIFEST).is_file() or not (run / CONFIG).is_file():
        raise UserError(f"{run} holds no run to resume: give the folder that holds its {MANIFEST}")
    return load_config(run / CONFIG)


def _run(
    cfg: Config,
    run: Path,
    state: RunState,
    checkpoint: Path | None,
    context: RunContext,
    messages: tuple[str, ...],
) -> RunResult:
    """Open the roles and hand over to the driver."""
    parents = read_manifest(run)["parents"]
    prompts = PromptStream(cfg.world.prompts("train"), cfg.seed)
    checkpoints = Checkpoints(run, cfg.keep_checkpoints)
    if not state.ended(cfg):
        policy, reward = Path(parents["policy"]["path"]), Path(parents["reward"]["path"])
        with (
            open_roles(cfg, _run_name(run), policy, reward, context.address, context.seated) as roles,
            _pointing_back(run, checkpoints),
        ):
            if checkpoint:
                roles.policy.load(checkpoint).get()
            _drop_later_rollouts(run, state.step)
            with contextlib.closing(RunLog(run, roles, state.step, context.show)) as log:
                state = train_policy(cfg, roles, prompts, log, checkpoints, state, context.stop_asked)
    if not state.ended(cfg):
        return RunResult(run, False, None, messages)
    summary = summarise_run(run) | {"ended": state.ended(cfg)}
    text, path = json.dumps(summary, indent=2) + "\n", run / "summary.json"
    if not path.is_file() or path.read_text() != text:
        write_text(path, text)
    return RunResult(run, True, summary, messages)


def _identity(cfg: Config, parents: dict[str, Artifact]) -> str:
    return "-".join([cfg.fingerprint(), *(p.sha256[:8] for p in parents.values())])


def _run_name(run: Path) -> str:
    """Of a run in Ray's dashboard: where it stands, as far as it takes to tell runs apart."""
    parts = [p for p in run.resolve().parts[-4:] if p not in ("train", "/")]
    return "-".join(parts)


@contextlib.contextmanager
def _pointing_back(run: Path, checkpoints: Checkpoints) -> Iterator[None]:
    """Adds to whatever stops a run where it can go on from."""
    try:
        yield
    except (GoldilocksError, OSError) as error:
        found, _ = checkpoints.latest()
        where = f"last good checkpoint: {found[0]}" if found else "no checkpoint was written yet"
        kind = type(error) if isinstance(error, GoldilocksError) else RunError
        raise kind(f"{error}. {where}; go on with `goldilocks train --resume {run}`") from error


def _drop_later_rollouts(run: Path, start_step: int) -> None:
    for path in (run / "rollouts").glob("step_*.parquet"):
        if int(path.stem.removeprefix("step_")) >= start_step:
            path.unlink()
    if start_step == 0:
        shutil.rmtree(run / "tensorboard", ignore_errors=True)
