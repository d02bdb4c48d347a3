"""A run folder, whatever the method: begun, gone on with where this very run stopped, and summed up at its end."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from framework.analysis.run_folder import METRICS, SUMMARY
from framework.artifacts import MANIFEST, Artifact, code_version, hash_folder, read_manifest, update_text, write_text
from framework.config import Config, load_config, parse_config
from framework.errors import DivergedError, GoldilocksError, RunError, UserError
from framework.overrides import apply_overrides
from jobs.workspace import LOCK_FILE, working_in

CONFIG, FINGERPRINT = "config.yaml", "fingerprint.txt"
STEPS = "train.steps"
PLACED = {"backend", "cluster", "trackers", "gold", "golds", "reward"}
"""Sections that may change no number: of scorers a limit of calls, for example. The fingerprint is compared first."""
_DEFAULT = "its default"


@dataclass(frozen=True)
class RunContext:
    """What surrounds a run and changes none of its numbers."""

    stop_asked: Callable[[], bool] = lambda: False
    """Asked between steps; True saves a checkpoint and ends the run there."""
    show: Callable[[int, dict[str, Any]], None] | None = None
    """Told every step's number and metrics."""
    address: str | None = None
    """Of a Ray cluster; None attaches inside a submitted job and starts one here elsewhere."""
    patience_seconds: float = 0.0
    """To wait for another process that leaves the folder."""
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

    A UserError where the folder holds another run, or cannot be written.
    """
    try:
        if not _has_begun(run) and run.exists() and any(not _is_beginning(path) for path in run.iterdir()):
            raise UserError(f"{run} is not empty and holds no run: choose another --out")
    except OSError as error:
        raise UserError(f"cannot write {run}: {error.strerror}; choose another --out") from error
    with working_in(run, context.patience_seconds):
        if _has_begun(run):
            if (run / FINGERPRINT).read_text(encoding="utf-8").strip() == inputs.identity:
                return _go_on(run, context, inputs.cfg.model_dump(mode="json", include=PLACED))
            if _has_rows(run):
                told = f" ({found})" if (found := differences(run, inputs.cfg)) else ""
                other = f"{run} holds a run of another configuration{told}"
                longer = f"; to make it longer, `goldilocks train --resume {run} {STEPS}=N`" if STEPS in told else ""
                raise UserError(f"{other}: choose another --out, or delete it{longer}")
        _begin(inputs, run)
        return _carry_on(inputs, run, context)


def _begin(inputs: RunInputs, run: Path) -> None:
    manifest = {
        "kind": inputs.cfg.train.kind,
        "axis": inputs.cfg.train.axis,
        "budget": inputs.cfg.train.budget,
        "fingerprint": inputs.identity,
        "settings": inputs.cfg.settings,
        "parents": {
            name: {"path": str(parent.path.resolve()), "sha256": parent.sha256, "figures": parent.figures}
            for name, parent in inputs.parents.items()
        },
        "code_version": code_version(),
    }
    _write_down(inputs, run, manifest)


def _write_down(inputs: RunInputs, run: Path, manifest: Mapping[str, Any]) -> None:
    """What the run is; its manifest comes last: until then it is no run yet, or as long as before."""
    write_text(run / CONFIG, inputs.cfg.to_yaml())
    write_text(run / FINGERPRINT, inputs.identity + "\n")
    write_text(run / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def resume_run(run: Path, context: RunContext, changes: Mapping[str, Any] = MappingProxyType({})) -> RunResult:
    """Go on from the newest sound checkpoint; a finished run is only summed up again.

    `changes` are settings of `PLACED`, where it goes on elsewhere than it began, and `train.steps`, where it is to
    become longer. A UserError where there is no run, one whose settings, policy or reward model have changed since, or
    one that cannot become longer, and where another command is at work there.
    """
    stored_config(run)  # nothing is made in a folder that holds no run
    with working_in(run, context.patience_seconds):
        return _go_on(run, context, changes)


def _go_on(run: Path, context: RunContext, changes: Mapping[str, Any]) -> RunResult:
    manifest, asked = read_manifest(run), dict(changes)
    steps = asked.pop(STEPS, None)
    cfg = parse_config(stored_config(run).model_dump(mode="json") | asked)
    if steps is not None and "settings" in manifest:  # a kill may have left the longer one in config.yaml
        cfg = _with_steps(cfg, manifest["settings"].get("train", {}).get("steps"))
    parents = {}
    for name, parent in manifest["parents"].items():
        path = Path(parent["path"])
        if not path.is_dir():
            raise UserError(f"{run} needs its {name} at {path}, which is gone: put it back")
        if hash_folder(path) != parent["sha256"]:
            raise UserError(
                f"the {name} at {path} is not the one this run began with: KL and rewards would not compare; put it back, "
                "or delete it and make it again with the command that made it"
            )
        parents[name] = Artifact(path, "", parent["sha256"], parent["figures"])
    inputs = RunInputs(cfg, parents)
    told = differences(run, cfg)
    if told or manifest["fingerprint"] != inputs.identity:
        if told or _has_rows(run):
            why = told or "or a file that it names has changed"
            raise UserError(
                f"{run / CONFIG} is not what this run began with ({why}): put that back, or begin another run"
            )
        _begin(inputs, run)  # a function of its user's was mended since
    if steps is not None and steps != cfg.train.length:
        inputs = RunInputs(_longer(cfg, steps), parents)
        (run / SUMMARY).unlink(missing_ok=True)
        now = {"fingerprint": inputs.identity, "settings": inputs.cfg.settings}
        _write_down(inputs, run, manifest | now)
    return _carry_on(inputs, run, context)


def _with_steps(cfg: Config, steps: Any) -> Config:
    """The configuration with another number of steps; None is the default."""
    tree = cfg.model_dump(mode="json")
    tree["train"].pop("steps", None)
    return parse_config(apply_overrides(tree, {} if steps is None else {STEPS: steps}))


def _longer(cfg: Config, steps: Any) -> Config:
    """The configuration that this run's becomes; a UserError where it would be shorter, or have begun otherwise."""
    longer = _with_steps(cfg, steps)
    if longer.train.length < cfg.train.length:
        raise UserError(f"{STEPS}={steps}: the run has {cfg.train.length}, and can only become longer")
    if bound := cfg.train.bound_to_length:
        raise UserError(f"{STEPS}={steps}: the run cannot become longer, for {bound}; begin another run")
    return longer


def differences(run: Path, cfg: Config) -> str:
    """What a configuration sets otherwise than the run in a folder was begun with; empty where nothing is known of it."""
    before = read_manifest(run).get("settings")
    if before is None:  # of a run from before settings were kept
        return ""
    then, now = (dict(_leaves(json.loads(json.dumps(tree)))) for tree in (before, cfg.settings))
    keys = [key for key in {**then, **now} if then.get(key, _DEFAULT) != now.get(key, _DEFAULT)]
    # A section that is not at its default names its kind, which need not differ.
    keys = [key for key in keys if not key.endswith(".kind") or key in then.keys() & now.keys()] or keys
    told = [f"{key}: {now.get(key, _DEFAULT)}, it began with {then.get(key, _DEFAULT)}" for key in keys[:3]]
    return "; ".join([*told, *([f"and {len(keys) - 3} more"] if len(keys) > 3 else [])])


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted key."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def stored_config(run: Path) -> Config:
    """The configuration of the run in a folder; a UserError where there is no run, or its configuration was emptied."""
    if not (run / MANIFEST).is_file() or not (run / CONFIG).is_file():
        raise UserError(f"{run} holds no run to resume: give the folder that holds its {MANIFEST}")
    return written_config(run / CONFIG)


def written_config(path: Path) -> Config:
    """The configuration in a file of ours; a UserError where it is empty, which ours never are."""
    if not path.read_bytes().strip():
        raise UserError(f"{path} is empty, and was not when this began: put it back, or begin anew in another --out")
    return load_config(path)


@contextlib.contextmanager
def pointing_back(run: Path, newest: Callable[[], Path | None]) -> Iterator[None]:
    """Adds to whatever stops a run where it can go on from."""
    try:
        yield
    except (GoldilocksError, OSError) as error:
        found = newest()
        where = f"last good checkpoint: {found}" if found else "no checkpoint was written yet"
        kind = type(error) if isinstance(error, GoldilocksError) else RunError
        then = "" if isinstance(error, DivergedError) else f"; go on with `goldilocks train --resume {run}`"
        raise kind(f"{error}. {where}{then}") from error


def _carry_on(inputs: RunInputs, run: Path, context: RunContext) -> RunResult:
    """Hand over to the method, and sum up what has come to its end."""
    from jobs.methods import METHODS  # each of which makes run folders by this module

    for tracker in inputs.cfg.trackers:
        tracker.assert_ready()
    result = METHODS[inputs.cfg.train.kind](inputs, run, context)
    if result.ended is None:
        return result
    from framework.analysis.table import summarise_run  # statistics take a second to import

    summary = summarise_run(run) | {"ended": result.ended}
    update_text(run / SUMMARY, json.dumps(summary, indent=2, allow_nan=False) + "\n")
    return replace(result, summary=summary)


def _has_begun(run: Path) -> bool:
    return (run / MANIFEST).is_file() and (run / FINGERPRINT).is_file()


def _has_rows(run: Path) -> bool:
    """Whether a run has come to anything yet that another one would not compare with."""
    log = run / METRICS
    return (log.is_file() and log.stat().st_size > 0) or any((run / "checkpoints").glob("step_*"))


def _is_beginning(path: Path) -> bool:
    """Whether a file is one of those that a run writes before it has begun: a kill may leave some of them."""
    scratch = path.name.startswith(".") and path.name.endswith(".writing")
    return scratch or path.name in (CONFIG, FINGERPRINT, MANIFEST, LOCK_FILE)
