"""One placement group per run: a bundle for every worker, all of them or none."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cluster.plan import Bundle, amount, asked, explain
from cluster.session import live_nodes
from framework.errors import PlacementError


@dataclass(frozen=True)
class Slot(Bundle):
    """A bundle that is held for one worker."""

    scheduling: Any = "DEFAULT"
    """Ray's strategy that puts an actor into this bundle and nowhere else."""


Slots = dict[str, list[Slot]]
"""Of each role, by rank."""


@contextmanager
def place(layout: Sequence[Bundle], name: str, strategy: str, timeout_seconds: float) -> Iterator[Slots]:
    """The layout's bundles as one placement group named `name`, for the length of a `with` block.

    A PlacementError says what was asked and what exists: at once where the cluster could not hold the layout even when
    idle, after `timeout_seconds` where it is busy.
    """
    # Deferred: importing Ray before `connect` has set its environment would fix the wrong settings.
    import ray

    plan = explain(layout, live_nodes(), strategy)
    if plan.problem:
        raise PlacementError(f"cannot place {name}: {plan.problem}; choose a smaller layout with cluster= or add nodes")
    group = ray.util.placement_group([resources(bundle) for bundle in layout], strategy=strategy, name=name)
    try:
        if not group.wait(timeout_seconds):
            raise PlacementError(_busy(name, layout, group, timeout_seconds))
        yield _slots(layout, group)
    finally:
        if ray.is_initialized():
            ray.util.remove_placement_group(group)


def inherited(layout: Sequence[Bundle], name: str) -> Slots:
    """Slots in the placement group that this process was started in; a PlacementError if it holds another layout."""
    import ray

    group = ray.util.get_current_placement_group()
    held = group.bundle_specs if group else "no placement group"
    wanted = [resources(bundle) for bundle in layout]
    if held != wanted:
        raise PlacementError(
            f"cannot place {name}: its layout asks for {wanted}, and it was started in {held}; leave the layout's "
            "file alone while it runs, and resume"
        )
    return _slots(layout, group)


def _slots(layout: Sequence[Bundle], group: Any) -> Slots:
    """One slot to each bundle of a group."""
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    slots: Slots = {}
    for index, bundle in enumerate(layout):
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
        slots.setdefault(bundle.role, []).append(Slot(**vars(bundle), scheduling=strategy))
    return slots


def resources(bundle: Bundle) -> dict[str, float]:
    """A bundle as Ray writes it; zeros are left out, Ray refuses a bundle of zeros."""
    return {key: value for key, value in (("CPU", bundle.cpus), ("GPU", bundle.gpus)) if value}


def _busy(name: str, layout: Sequence[Bundle], group: Any, waited_seconds: float) -> str:
    """A line for a layout that would fit an idle cluster: what it asks, what is free, what exists."""
    import ray

    free, total = ray.available_resources(), ray.cluster_resources()
    state = ray.util.placement_group_table(group)["stats"]["scheduling_state"]
    idle = amount(free.get("CPU", 0), free.get("GPU", 0))
    return (
        f"cannot place {name}: after {waited_seconds:g} s the cluster is still too busy ({state}). "
        f"Asked: {asked(layout)}. Free: {idle} of {amount(total.get('CPU', 0), total.get('GPU', 0))}; "
        "wait for other jobs, or choose a smaller layout with cluster="
    )
