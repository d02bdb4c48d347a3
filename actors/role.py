"""What every role's client shares: its group, and a record of the calls made through it."""

from typing import Any

from actors.group import Group, Pending


class Role:
    """Base of the typed clients. Remembers its calls, so that a step can tell where its time went."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._calls: list[tuple[str, Pending[Any]]] = []

    def track(self, stage: str, pending: Pending[Any]) -> Pending[Any]:
        """The pending result, remembered under the stage it belongs to."""
        self._calls.append((stage, pending))
        return pending

    def take_calls(self) -> list[tuple[str, Pending[Any]]]:
        """(stage, pending) of every call since the last time, forgotten afterwards."""
        calls, self._calls = self._calls, []
        return calls
