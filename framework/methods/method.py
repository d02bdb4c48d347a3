"""What every value of `train` says of itself, so that plans, tables and reports need not know it."""

from typing import ClassVar

from framework.component import Component


class Method(Component):
    """A way to make a better policy from a world, a start policy and a proxy."""

    kind: str
    starts_from: ClassVar[tuple[str, ...]] = ("policy", "reference", "reward")
    """Stages whose folders a run starts from; the hash of each is part of the run's identity."""
    covers: ClassVar[tuple[str, ...]] = ()
    """Root sections, beside `seed` and `train`, that can change a number of a run."""
    axis: ClassVar[str] = "step"
    """The figure that says how far a run has come. Whatever it is, the rows of metrics.jsonl are numbered by `step`."""
    measures: ClassVar[tuple[str, ...]] = ("kl_nats", "gold")
    """Figures that a row has whenever they are due."""

    @property
    def length(self) -> int:
        """Rows of a run that is not ended early."""
        raise NotImplementedError

    @property
    def budget(self) -> float | None:
        """Nats per sequence that a run aims at; None where it aims at none."""
        return None

    @property
    def sets_kl(self) -> tuple[str, ...]:
        """Keys of `train` that say how far a run goes from the start policy: runs that differ in them are one curve."""
        return ()

    @property
    def gold_steps(self) -> tuple[int, ...]:
        """The rows at which gold is measured."""
        return tuple(range(self.length))

    @property
    def bound_to_length(self) -> str | None:
        """Why a run that has begun cannot become longer; None where its rows do not depend on how many there will be."""
        return None

    def describe(self, max_new_tokens: int) -> list[str]:
        """What a run will do, a line each, for `goldilocks check`."""
        return [f"a run: {self.length} {self.axis}s; it measures {', '.join(self.measures)}"]
