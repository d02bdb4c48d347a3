"""One run of an experiment: what it was asked to be, and what became of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["finished", "stopped", "failed", "unfinished"]
COMPLETE = ("finished", "stopped")  # statuses of runs whose last rows stand for where the run was going


@dataclass(frozen=True)
class RunRecord:
    """A run's place in its experiment, and its state."""

    run: str  # name of its folder in that of its seed; the same for every seed
    curve: str
    """Condition, variant and the swept keys that make curves differ: neither the key that sets KL nor the seed."""
    condition: str
    variant: str
    point: str  # what its point sets, as a line of text; like the condition, empty where there is none
    seed: int
    method: str  # kind of its section `train`
    budget: float | None = None  # nats per sequence that it is asked for; None where it is asked for none
    settings: dict[str, Any] = field(default_factory=dict)  # the swept keys, dotted, with this run's values
    status: Status = "unfinished"
    """`stopped`: ended early by the scheduler or on purpose, and all that it has is good data."""
    folder: Path | None = None  # its run folder; None where it has logged nothing yet
    error: str | None = None
    axis: str = "step"  # the figure of its rows that says how far it has come

    @property
    def is_complete(self) -> bool:
        """Whether its last rows stand for where it was going."""
        return self.status in COMPLETE


def is_number(value: Any) -> bool:
    """Whether it is one and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
