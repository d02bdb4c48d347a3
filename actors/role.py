"""What every role's client shares: its group, and a record of the calls made through it."""

from pathlib import Path
from typing import Any, Literal

from actors.group import Group, Pending


class Role:
    """Base of the typed clients. Remembers its calls, so that a step can tell where its time went."""

    def __init__(self, group: Group, rows: int = 1, divide: Literal["rows", "members"] = "rows") -> None:
        """A client of the workers in `group`.

        Args:
            rows: of one forward pass of a scorer; shares are multiples of it.
            divide: whether workers divide the rows of a batch or the members of the ensemble.
        """
        self.group, self.rows, self.divide = group, rows, divide
        self._calls: list[tuple[str, Pending[Any]]] = []

    def track(self, stage: str, pending: Pending[Any]) -> Pending[Any]:
        """The pending result, remembered under the stage it belongs to."""
        self._calls.append((stage, pending))
        return pending

    def take_calls(self) -> list[tuple[str, Pending[Any]]]:
        """(stage, pending) of every call since the last time, forgotten afterwards."""
        calls, self._calls = self._calls, []
        return calls


class WeightsRole(Role):
    """A role whose workers hold weights that can be exchanged while they live."""

    def load(self, folder: Path) -> Pending[list[Any]]:
        """Every worker goes on with what lies in `folder`, instead of what it holds."""
        return self.track("checkpoint", self.group.load(str(folder)))
