"""What fits where, worked out before anything starts. Pure: no Ray, no waiting."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cluster.spec import ClusterSpec, RoleSpec

_UNIT = 10_000
"""Ray counts resources in ten-thousandths; sums of floats such as 0.4 + 3 * 0.2 must come out whole."""
_LIMIT = 20_000
"""Steps of the search for a placement."""


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


def bundles(spec: ClusterSpec) -> list[Bundle]:
    """One bundle per worker, in the order of the roles."""
    return [bundle for role, share in spec.roles.items() for bundle in _replicas(role, share)]


def fit_bundles(spec: ClusterSpec) -> list[Bundle]:
    """One bundle per worker of a fit."""
    return _replicas("fit", spec.fit)


def run_bundles(spec: ClusterSpec, in_one_process: bool) -> list[Bundle]:
    """What a run asks for: one bundle per worker, or a CPU, and a GPU if a role uses one, where roles take turns."""
    if not in_one_process:
        return bundles(spec)
    shares = spec.roles.values()
    cpus = max([1.0, *(share.cpus for share in shares)])
    return [Bundle("run", "run", 0, cpus=cpus, gpus=min(1.0, sum(share.gpus for share in shares)))]


def _replicas(role: str, share: RoleSpec) -> list[Bundle]:
    names = [role] if share.replicas == 1 else [f"{role}-{rank}" for rank in range(share.replicas)]
    return [Bundle(name, role, rank, share.cpus, share.gpus, share.threads) for rank, name in enumerate(names)]


def local_node(spec: ClusterSpec) -> Node:
    """What a session here would offer: `spec.local`, else what the machine has; no GPUs that nothing asks for."""
    cpus, gpus = spec.local.num_cpus, spec.local.num_gpus
    if cpus is None:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if gpus is None and any(share.gpus for share in (*spec.roles.values(), spec.fit)):
        # Seconds to import, and needed only where the layout asks for GPUs and leaves their count open.
        import torch

        gpus = torch.cuda.device_count()
    return Node("this machine", cpus, gpus or 0)


def amount(cpus: float, gpus: float) -> str:
    """`1 CPU and 0.4 GPUs`, as messages say it."""
    return f"{counted(cpus, 'CPU')} and {counted(gpus, 'GPU')}"


def counted(number: float, noun: str) -> str:
    """`3 runs`, `1 GPU`."""
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def explain(layout: Sequence[Bundle], nodes: Sequence[Node], strategy: str = "PACK") -> Plan:
    """Where each bundle can go on these nodes, or one line naming what was asked and what exists.

    A layout is called impossible only when it is: where the search is cut short, Ray decides.
    """
    problem = _too_large(layout, nodes) or _too_many(layout, nodes)
    homes: tuple[str, ...] = ()
    if problem is None:
        # Large shares first: what is hard to place decides early.
        order = sorted(range(len(layout)), key=lambda i: (-layout[i].gpus, -layout[i].cpus, i))
        free = [_Free(_ticks(node.cpus), (_UNIT,) * int(node.gpus), 0, node.name) for node in nodes]
        try:
            found = _search([(i, layout[i]) for i in order], free, strategy == "SPREAD", iter(range(_LIMIT)))
        except StopIteration:
            found = dict.fromkeys(order, "decided by Ray")
        if found is None:
            problem = f"the shares do not divide over the nodes and devices: {asked(layout)}; {_inventory(nodes)}"
        else:
            homes = tuple(found[i] for i in range(len(layout)))
    return Plan(tuple(layout), tuple(nodes), homes, problem)


def _too_large(layout: Sequence[Bundle], nodes: Sequence[Node]) -> str | None:
    """A line about the first bundle that no node can hold even when empty."""
    if not nodes:
        return "the cluster has no live node"
    for bundle in layout:
        if not any(node.cpus >= bundle.cpus and int(node.gpus) >= bundle.gpus for node in nodes):
            by_need = (lambda n: (n.gpus, n.cpus)) if bundle.gpus else (lambda n: (n.cpus, n.gpus))
            largest = max(nodes, key=by_need)
            has = f"the largest node ({largest.name}) has {amount(largest.cpus, largest.gpus)}"
            return f"{bundle.name} asks for {amount(bundle.cpus, bundle.gpus)}; {has}"
    return None


def _too_many(layout: Sequence[Bundle], nodes: Sequence[Node]) -> str | None:
    """A line where the bundles together exceed the nodes together."""
    (cpus, gpus), (all_cpus, all_gpus) = _totals(layout), _totals(nodes)
    if cpus <= all_cpus and gpus <= all_gpus:
        return None
    in_all = amount(cpus / _UNIT, gpus / _UNIT)
    return f"{len(layout)} workers ask for {in_all} in all ({asked(layout)}); {_inventory(nodes)}"


def _totals(shares: Sequence[Bundle] | Sequence[Node]) -> tuple[int, int]:
    return sum(_ticks(share.cpus) for share in shares), sum(_ticks(share.gpus) for share in shares)


def asked(layout: Sequence[Bundle]) -> str:
    """What each bundle asks for, in words."""
    return ", ".join(f"{bundle.name} {amount(bundle.cpus, bundle.gpus)}" for bundle in layout)


def _inventory(nodes: Sequence[Node]) -> str:
    """What exists, node by node."""
    shown = [f"{node.name} has {amount(node.cpus, node.gpus)}" for node in nodes[:8]]
    more = [f"{len(nodes) - 8} more nodes"] if len(nodes) > 8 else []
    return ", ".join(shown + more)


def _ticks(number: float) -> int:
    return round(number * _UNIT)


class _Free(NamedTuple):
    """What is left of a node during the search."""

    cpus: int
    devices: tuple[int, ...]
    workers: int
    name: str


def _search(
    todo: Sequence[tuple[int, Bundle]], free: Sequence[_Free], spread: bool, steps: Iterator[int]
) -> dict[int, str] | None:
    """A home for each bundle by backtracking, or None where there is none; StopIteration where `steps` run out."""
    if not todo:
        return {}
    (index, bundle), rest = todo[0], todo[1:]
    tried: set[tuple[int, tuple[int, ...]]] = set()
    for at in sorted(range(len(free)), key=lambda at: free[at].workers if spread else 0):
        node = free[at]
        state = (node.cpus, tuple(sorted(node.devices)))
        if node.cpus < _ticks(bundle.cpus) or state in tried:
            continue
        tried.add(state)
        for taken in _device_choices(node.devices, bundle.gpus):
            next(steps)
            share = _ticks(min(bundle.gpus, 1))
            devices = tuple(left - share * (i in taken) for i, left in enumerate(node.devices))
            after = _Free(node.cpus - _ticks(bundle.cpus), devices, node.workers + 1, node.name)
            found = _search(rest, [*free[:at], after, *free[at + 1 :]], spread, steps)
            if found is not None:
                shown = f", GPU {', '.join(map(str, taken))}" if taken else ""
                return found | {index: node.name + shown}
    return None


def _device_choices(devices: Sequence[int], gpus: float) -> list[list[int]]:
    """Device sets that could serve, one per distinct filling, the fullest device with room first."""
    if gpus == 0:
        return [[]]
    if gpus >= 1:
        empty = [device for device, left in enumerate(devices) if left == _UNIT]
        return [empty[: int(gpus)]] if len(empty) >= gpus else []
    by_filling = {left: device for device, left in reversed(list(enumerate(devices)))}
    return [[by_filling[left]] for left in sorted(by_filling) if left >= _ticks(gpus)]


def table(plan: Plan) -> str:
    """The plan as aligned text: one line per worker, then the nodes, then the problem if there is one."""
    homes = plan.homes or ("no room",) * len(plan.bundles)
    rows = [("worker", "CPUs", "GPUs", "threads", "goes to")]
    for own, home in zip(plan.bundles, homes, strict=True):
        rows.append((own.name, f"{own.cpus:g}", f"{own.gpus:g}", str(own.threads), home))
    widths = [*(max(map(len, column)) for column in list(zip(*rows, strict=True))[:4]), 0]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.append(f"nodes: {_inventory(plan.nodes)}" if plan.nodes else "nodes: none")
    if plan.problem:
        lines.append(f"does not fit: {plan.problem}")
    return "\n".join(lines)


def capacity(layout: Sequence[Bundle], nodes: Sequence[Node]) -> int:
    """How many whole layouts the nodes hold together; an estimate from totals, for choosing a concurrency."""
    asked, offered = _totals(layout), _totals(nodes)
    return min((have // need for need, have in zip(asked, offered, strict=True) if need), default=0)
