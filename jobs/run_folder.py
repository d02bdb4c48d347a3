"""A run folder, whatever the method: begun, gone on with where this very run stopped, and summed up at its end."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from framework.artifacts import MANIFEST, Artifact, code_version, hash_folder, read_manifest, update_text, write_text
from framework.config import Config, load_config
from framework.errors import GoldilocksError, RunError, UserError

CONFIG, FINGERPRINT, SUMMARY = "config.yaml", "fingerprint.txt", "summary.json"


@dataclass(frozen=True)
class RunContext:
    """What surrounds a run and changes none of its numbers."""

    stop_asked: Callable[[], bool] = lambda: False
    """Asked between steps; True saves a checkpoint and ends the run there."""
    show: Callable[[int, dict[str, Any]], None] | None = None
    """Told every step's number and metrics."""
    address: str | None = None
    """Of a Ray cluster; None attaches inside a submitted job and starts one here elsewhere."""
    in_placement: bool = False
    """Whether this process was started in a placement group that holds the layout: the roles then sit there."""


@dataclass(frozen=True)
class RunInputs:
    """What a run starts from."""

    cfg: Config
    parents: Mapping[str, Artifact]
    """The stages that its method starts from, by name."""

    @property
    def identity(self) -> str:
        """What makes it this run and no other: its method's fingerprint, and the contents that it starts from."""
        return "-".join([self.cfg.run_fingerprint(), *(p.sha256[:8] for p in self.parents.values())])


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    run: Path
    ended: str | None
    """Why it is over, in a few words; None after an interrupt: `goldilocks train --resume RUN` goes on."""
    messages: tuple[str, ...] = ()
    """For the user, a line each."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """What `summary.json` holds; empty while it has not ended."""


def make_run(inputs: RunInputs, run: Path, context: RunContext) -> RunResult:
    """A run from its beginning, or from where this very run stopped, on the backend and cluster of its configuration.

    Raises:
        UserError: the folder holds another run, or cannot be written.
    """
    if _has_begun(run):
        if (run / FINGERPRINT).read_text().strip() != inputs.identity:
            raise UserError(f"{run} holds a run of another configuration: choose another --out, or delete it")
        # Of scorers, what changes no number, such as a limit of calls: the fingerprint is the same.
        placed = ("backend", "cluster", "gold", "golds", "reward")
        return resume_run(run, context, {name: getattr(inputs.cfg, name) for name in placed})
    manifest = {
        "kind": inputs.cfg.train.kind,
        "axis": inputs.cfg.train.axis,
        "budget": inputs.cfg.train.budget,
        "fingerprint": inputs.identity,
        "parents": {
            name: {"path": str(parent.path.resolve()), "sha256": parent.sha256, "figures": parent.figures}
            for name, parent in inputs.parents.items()
        },
        "code_version": code_version(),
    }
    try:
        if run.exists() and any(not _is_beginning(path) for path in run.iterdir()):
            raise UserError(f"{run} is not empty and holds no run: choose another --out")
        run.mkdir(parents=True, exist_ok=True)
        write_text(run / CONFIG, inputs.cfg.to_yaml())
    except OSError as error:
        raise UserError(f"cannot write {run}: {error.strerror}; choose another --out") from error
    write_text(run / FINGERPRINT, inputs.identity + "\n")
    write_text(run / MANIFEST, json.dumps(manifest, indent=2) + "\n")  # last: from here on this is a run
    return _carry_on(inputs, run, context)


def resume_run(run: Path, context: RunContext, placed: Mapping[str, Any] = MappingProxyType({})) -> RunResult:
    """Go on from the newest sound checkpoint; a finished run is only summed up again.

    Args:
        placed: settings that change no number, such as `backend` and `cluster` where it goes on elsewhere than it began.

    Raises:
        UserError: no run there, or one whose policy or reward model has changed since.
    """
    cfg = stored_config(run).model_copy(update=placed)
    parents = {}
    for name, parent in read_manifest(run)["parents"].items():
        path = Path(parent["path"])
        if not path.is_dir():
            raise UserError(f"{run} needs its {name} at {path}, which is gone: put it back")
        if hash_folder(path) != parent["sha256"]:
            raise UserError(
                f"the {name} at {path} is not the one this run began with: KL and rewards would not compare"
            )
        parents[name] = Artifact(path, "", parent["sha256"], parent["figures"])
    return _carry_on(RunInputs(cfg, parents), run, context)


def stored_config(run: Path) -> Config:
    """The configuration of the run in a folder.

    Raises:
        UserError: no run there.
    """
    if not (run / MANIFEST).is_file() or not (run / CONFIG).is_file():
        raise UserError(f"{run} holds no run to resume: give the folder that holds its {MANIFEST}")
    return load_config(run / CONFIG)


@contextlib.contextmanager
def pointing_back(run: Path, newest: Callable[[], Path | None]) -> Iterator[None]:
    """Adds to whatever stops a run where it can go on from."""
    try:
        yield
    except (GoldilocksError, OSError) as error:
        found = newest()
        where = f"last good checkpoint: {found}" if found else "no checkpoint was written yet"
        kind = type(error) if isinstance(error, GoldilocksError) else RunError
        raise kind(f"{error}. {where}; go on with `goldilocks train --resume {run}`") from error


def _carry_on(inputs: RunInputs, run: Path, context: RunContext) -> RunResult:
    """Hand over to the method, and sum up what has come to its end."""
    from jobs.methods import METHODS  # each of which makes run folders by this module

    result = METHODS[inputs.cfg.train.kind](inputs, run, context)
    if result.ended is None:
        return result
    from framework.analysis.table import summarise_run  # statistics take a second to import

    summary = summarise_run(run) | {"ended": result.ended}
    update_text(run / SUMMARY, json.dumps(summary, indent=2, allow_nan=False) + "\n")
    return replace(result, summary=summary)


def _has_begun(run: Path) -> bool:
    return (run / MANIFEST).is_file() and (run / FINGERPRINT).is_file()


def _is_beginning(path: Path) -> bool:
    """Whether a file is one of those that a run writes before it has begun: a kill may leave some of them."""
    scratch = path.name.startswith(".") and path.name.endswith(".writing")
    return scratch or path.name in (CONFIG, FINGERPRINT, MANIFEST)
