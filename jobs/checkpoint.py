"""Checkpoints: whole or absent, the last few kept, a damaged one skipped with a message."""

import json
import re
import shutil
from pathlib import Path

from actors.policy import PolicyRole
from framework.artifacts import broken_seal, sealed, writing
from framework.errors import RunError
from jobs.run_state import RunState

STATE = "state.json"


class Checkpoints:
    """The folder `checkpoints/step_N` of a run."""

    def __init__(self, run: Path, keep: int) -> None:
        # Absolute: the policy may write from another working folder.
        self.folder, self.keep = run.resolve() / "checkpoints", keep

    def save(self, state: RunState, policy: PolicyRole) -> Path:
        """Write one checkpoint atomically and drop the oldest beyond `keep`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{state.step}"
        with writing(path) as scratch:
            policy.save(scratch).get()
            sizes = {p.name: p.stat().st_size for p in sorted(scratch.iterdir())}
            record = sealed({"state": state.to_json(), "files": sizes}, scratch)
            (scratch / STATE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        # Later ones are damaged, or they would have been gone on from; they must not push out a sound one.
        for old in [p for p in self._existing() if _step(p) <= state.step][: -self.keep]:
            shutil.rmtree(old)
        return path

    def latest(self) -> tuple[tuple[Path, RunState] | None, list[str]]:
        """The newest sound checkpoint and its state, and a message for each damaged one passed over."""
        skipped: list[str] = []
        for path in reversed(self._existing()):
            try:
                return (path, _read(path)), skipped
            except RunError as error:
                skipped.append(str(error))
        return None, skipped

    def newest(self) -> Path | None:
        """The newest sound checkpoint."""
        found, _ = self.latest()
        return found and found[0]

    def _existing(self) -> list[Path]:
        found = [p for p in self.folder.glob("step_*") if re.fullmatch(r"step_\d+", p.name)]
        return sorted(found, key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def _read(path: Path) -> RunState:
    """The state in a checkpoint, once every file in it is known to be what was written; a RunError where it is not."""
    try:
        record = json.loads((path / STATE).read_text(encoding="utf-8"))
        for name, size in record["files"].items():
            if (path / name).stat().st_size != size:
                raise RunError(f"checkpoint {path.name}: {name} is cut short; skipped")
        # One without is from before there were hashes.
        broken = broken_seal(record, path) if "record" in record else None
        if broken is not None:
            raise RunError(f"checkpoint {path.name}: {broken or STATE} is not what was written; skipped")
        state = RunState.from_json(record["state"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"checkpoint {path.name} is incomplete ({type(error).__name__}: {error}); skipped") from error
    if path.name != f"step_{state.step}":
        raise RunError(f"checkpoint {path.name} is one of step {state.step}; skipped")
    return state
