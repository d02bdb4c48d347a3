"""What fits where, worked out before anything starts. Pure: no Ray, no waiting."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.spec import ClusterSpec, RoleSpec

# Ray counts resources in ten-thousandths; sums of floats such as 0.4 + 3 * 0.2 must come out whole.
_UNIT = 10_000
_SEARCH_LIMIT = 20_000


@dataclass(frozen=True)
class Bundle:
    """The share of one worker."""

    name: str
    """`role`, or `role-rank` where the role has replicas."""
    role: str
    rank: int
    cpus: float
    gpus: float
    threads: int = 1


@dataclass(frozen=True)
class Node:
    """A machine and what it offers."""

    name: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Plan:
    """Where each bundle can go, or why the layout cannot be placed."""

    bundles: tuple[Bundle, ...]
    nodes: tuple[Node, ...]
    homes: tuple[str, ...]
    """Per bundle, a node and its devices; empty where there is a problem. Ray may choose another node."""
    problem: str | None
    """One line, or None where the layout fits."""

    @property
    def fits(self) -> bool:
        """Whether every bundle has a home."""
        return self.problem is None


def bundles(spec: ClusterSpec) -> list[Bundle]:
    """One bundle per worker, in the order of the roles."""
    return [bundle for role, share in spec.roles.named().items() for bundle in _replicas(role, share)]


def fit_bundles(spec: ClusterSpec) -> list[Bundle]:
    """One bundle per worker of a reward fit."""
    return _replicas("fit", spec.fit)


def run_bundles(spec: ClusterSpec, in_one_process: bool) -> list[Bundle]:
    """What a run asks for: one bundle per worker, or a CPU, and a GPU if a role uses one, where roles take turns."""
    if not in_one_process:
        return bundles(spec)
    shares = spec.roles.named().values()
    cpus = max(1.0, *(share.cpus for share in shares))
    return [Bundle("run", "run", 0, cpus=cpus, gpus=min(1.0, sum(share.gpus for share in shares)))]


def _replicas(role: str, share: RoleSpec) -> list[Bundle]:
    return [
        Bundle(
            name=role if share.replicas == 1 else f"{role}-{rank}",
            role=role,
            rank=rank,
            cpus=share.cpus,
            gpus=share.gpus,
            threads=share.threads,
        )
        for rank in range(share.replicas)
    ]


def local_node(spec: ClusterSpec) -> Node:
    """What a session on this machine would offer: the counts of `spec.local`, else the machine's own."""
    cpus, gpus = spec.local.num_cpus, spec.local.num_gpus
    if cpus is None:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if gpus is None:
        # Seconds to import, and needed only where the layout leaves the count open.
        import torch

        gpus = torch.cuda.device_count()
    return Node("this machine", cpus, gpus)


def amount(cpus: float, gpus: float) -> str:
    """`1 CPU and 0.4 GPUs`, as messages say it."""
    return f"{_count(cpus, 'CPU')} and {_count(gpus, 'GPU')}"


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def explain(layout: Sequence[Bundle], nodes: Sequence[Node], strategy: str = "PACK") -> Plan:
    """Where each bundle can go on these nodes, or one line naming what was asked and what exists.

    A layout is called impossible only when it is: where the search is cut short, Ray decides.
    """
    problem = _too_large(layout, nodes) or _too_many(layout, nodes)
    homes: tuple[str, ...] = ()
    if problem is None:
        search = _Search(layout, nodes, spread=strategy == "SPREAD")
        found = search.run()
        if found:
            homes = tuple(search.homes[index] for index in range(len(layout)))
        elif search.steps < _SEARCH_LIMIT:
            asked = ", ".join(f"{bundle.name} {amount(bundle.cpus, bundle.gpus)}" for bundle in layout)
            problem = f"the shares do not divide over the nodes and devices: {asked}; {_inventory(nodes)}"
        else:
            homes = ("decided by Ray",) * len(layout)
    return Plan(tuple(layout), tuple(nodes), homes, problem)


def _too_large(layout: Sequence[Bundle], nodes: Sequence[Node]) -> str | None:
    """A line about the first bundle that no node can hold even when empty."""
    if not nodes:
        return "the cluster has no live node"
    for bundle in layout:
        if not any(_ticks(node.cpus) >= _ticks(bundle.cpus) and _holds_gpus(node, bundle) for node in nodes):
            largest = max(
                nodes, key=lambda node: (node.gpus, node.cpus) if bundle.gpus else (node.cpus, node.gpus)
            )
            return (
                f"{bundle.name} asks for {amount(bundle.cpus, bundle.gpus)}; "
                f"the largest node ({largest.name}) has {amount(largest.cpus, largest.gpus)}"
            )
    return None


def _holds_gpus(node: Node, bundle: Bundle) -> bool:
    return int(node.gpus) >= bundle.gpus


def _too_many(layout: Sequence[Bundle], nodes: Sequence[Node]) -> str | None:
    """A line where the bundles together exceed the nodes together."""
    cpus = sum(_ticks(bundle.cpus) for bundle in layout)
    gpus = sum(_ticks(bundle.gpus) for bundle in layout)
    if cpus <= sum(_ticks(node.cpus) for node in nodes) and gpus <= sum(_ticks(node.gpus) for node in nodes):
        return None
    asked = ", ".join(f"{bundle.name} {amount(bundle.cpus, bundle.gpus)}" for bundle in layout)
    in_all = amount(cpus / _UNIT, gpus / _UNIT)
    return f"{len(layout)} workers ask for {in_all} in all ({asked}); {_inventory(nodes)}"


def _inventory(nodes: Sequence[Node]) -> str:
    """What exists, node by node."""
    shown = [f"{node.name} has {amount(node.cpus, node.gpus)}" for node in nodes[:8]]
    more = [f"{len(nodes) - 8} more nodes"] if len(nodes) > 8 else []
    return ", ".join(shown + more)


def _ticks(number: float) -> int:
    return round(number * _UNIT)


class _Search:
    """Exact placement by backtracking, large shares first; a step limit bounds awkward layouts."""

    def __init__(self, layout: Sequence[Bundle], nodes: Sequence[Node], spread: bool) -> None:
        self.layout = layout
        self.nodes = nodes
        self.spread = spread
        self.order = sorted(range(len(layout)), key=lambda i: (-layout[i].gpus, -layout[i].cpus, i))
        self.cpus = [_ticks(node.cpus) for node in nodes]
        self.devices = [[_UNIT] * int(node.gpus) for node in nodes]
        self.workers = [0] * len(nodes)
        self.homes: dict[int, str] = {}
        self.steps = 0

    def run(self, depth: int = 0) -> bool:
        """Whether the bundles from `depth` on find a home; fills `homes`."""
        if depth == len(self.order):
            return True
        index = self.order[depth]
        bundle = self.layout[index]
        candidates = list(range(len(self.nodes)))
        if self.spread:
            candidates.sort(key=lambda node: self.workers[node])
        tried: set[tuple[int, tuple[int, ...]]] = set()
        for node in candidates:
            state = (self.cpus[node], tuple(sorted(self.devices[node])))
            if self.cpus[node] < _ticks(bundle.cpus) or state in tried:
                continue
            tried.add(state)
            for taken in self._device_choices(node, bundle.gpus):
                self.steps += 1
                if self.steps >= _SEARCH_LIMIT:
                    return False
                self._claim(node, bundle, taken, 1)
                self.homes[index] = self._home(node, taken)
                if self.run(depth + 1):
                    return True
                self._claim(node, bundle, taken, -1)
        return False

    def _device_choices(self, node: int, gpus: float) -> list[list[int]]:
        """Device sets that could serve, one per distinct filling, the fullest device with room first."""
        devices = self.devices[node]
        if gpus == 0:
            return [[]]
        if gpus >= 1:
            empty = [device for device, free in enumerate(devices) if free == _UNIT]
            return [empty[: int(gpus)]] if len(empty) >= gpus else []
        by_filling = {free: device for device, free in reversed(list(enumerate(devices)))}
        return [[by_filling[free]] for free in sorted(by_filling) if free >= _ticks(gpus)]

    def _claim(self, node: int, bundle: Bundle, taken: list[int], sign: int) -> None:
        self.cpus[node] -= sign * _ticks(bundle.cpus)
        self.workers[node] += sign
        for device in taken:
            self.devices[node][device] -= sign * _ticks(min(bundle.gpus, 1))

    def _home(self, node: int, taken: list[int]) -> str:
        shown = f", GPU {', '.join(str(device) for device in taken)}" if taken else ""
        return self.nodes[node].name + shown


def table(plan: Plan) -> str:
    """The plan as aligned text: one line per worker, then the nodes, then the problem if there is one."""
    homes = plan.homes or ("no room",) * len(plan.bundles)
    rows = [("worker", "CPUs", "GPUs", "threads", "goes to")]
    rows += [
        (bundle.name, f"{bundle.cpus:g}", f"{bundle.gpus:g}", str(bundle.threads), home)
        for bundle, home in zip(plan.bundles, homes, strict=True)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:4], widths, strict=True)), row[4]])
        for row in rows
    ]
    lines.append(f"nodes: {_inventory(plan.nodes)}" if plan.nodes else "nodes: none")
    if plan.problem:
        lines.append(f"does not fit: {plan.problem}")
    return "\n".join(lines)


def capacity(layout: Sequence[Bundle], nodes: Sequence[Node]) -> int:
    """How many whole layouts the nodes hold together; an estimate from totals, for choosing a concurrency."""
    cpus = sum(_ticks(bundle.cpus) for bundle in layout)
    gpus = sum(_ticks(bundle.gpus) for bundle in layout)
    room = []
    if cpus:
        room.append(sum(_ticks(node.cpus) for node in nodes) // cpus)
    if gpus:
        room.append(sum(_ticks(node.gpus) for node in nodes) // gpus)
    return min(room, default=0)
