"""Checkpoints: whole or absent, the last few kept, a damaged one skipped with a message."""

import json
import re
import shutil
from pathlib import Path

from actors.policy import PolicyRole
from framework.artifacts import writing
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
            # Sizes let a reader tell a torn copy from a whole one without reading gigabytes.
            sizes = {p.name: p.stat().st_size for p in sorted(scratch.iterdir())}
            (scratch / STATE).write_text(
                json.dumps({"state": state.to_json(), "files": sizes}, indent=2) + "\n", encoding="utf-8"
            )
        for old in self._existing()[: -self.keep]:
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
        return sorted(found, key=lambda p: int(p.name.removeprefix("step_")))


def _read(path: Path) -> RunState:
    try:
        record = json.loads((path / STATE).read_text(encoding="utf-8"))
        for name, size in record["files"].items():
            if (path / name).stat().st_size != size:
                raise RunError(f"checkpoint {path.name}: {name} is cut short; skipped")
        return RunState.from_json(record["state"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"checkpoint {path.name} is incomplete ({type(error).__name__}: {error}); skipped") from error
