"""Where a study's runs go: threads over one Ray session, or processes of this machine."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.plan import bundles, capacity
from cluster.session import connect
from cluster.spec import load_spec
from framework.artifacts import Artifact
from framework.config import Config
from jobs.train import RunContext, RunResult, start_run

Show = Callable[[int, dict[str, Any]], None]


@dataclass(frozen=True)
class Runners:
    """Takes runs and does several at a time. No number depends on how many."""

    executor: Executor
    stop_asked: Callable[[], bool]
    address: str | None
    stopping: Any = None
    """An event that other processes look at between steps; None where runs are threads of this one."""

    def submit(
        self, cfg: Config, run: Path, policy: Artifact, reward: Artifact, show: Show | None
    ) -> Future[RunResult]:
        """Begin a run as soon as there is room for it."""
        if self.stopping is not None:
            with (
                _without_interrupts()
            ):  # a process that is born now must not die of one before it can ignore it
                return self.executor.submit(_run_apart, cfg, run, policy, reward)
        context = RunContext(self.stop_asked, show, self.address)
        return self.executor.submit(start_run, cfg, run, policy, reward, context)

    def relay(self) -> None:
        """Pass a wish to stop on: to runs in other processes, and to those that have not begun."""
        if self.stop_asked():
            self.halt()

    def halt(self) -> None:
        """Let running runs save and stop, and the others not begin."""
        if self.stopping is not None:
            self.stopping.set()
        self.executor.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def open_runners(cfg: Config, stop_asked: Callable[[], bool], address: str | None) -> Iterator[Runners]:
    """For the length of a `with` block: as many runs at a time as the cluster, or this machine's cores, hold."""
    if cfg.backend == "inline":
        # A process each: torch's global generator and its threads are a process's own.
        spawn = multiprocessing.get_context("spawn")
        stopping = spawn.Event()
        with ProcessPoolExecutor(_cores(), spawn, initializer=_begin_process, initargs=(stopping,)) as pool:
            yield from _halting(Runners(pool, stop_asked, address, stopping))
        return
    spec = load_spec(cfg.cluster)
    with connect(address, spec, namespace="study") as session:
        at_once = max(1, capacity(bundles(spec), session.nodes()))
        with ThreadPoolExecutor(at_once) as pool:
            yield from _halting(Runners(pool, stop_asked, address))


def _halting(runners: Runners) -> Iterator[Runners]:
    """The runners, which stop where the block around them fails: leaving it waits for them."""
    try:
        yield runners
    except BaseException:
        runners.halt()
        raise


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """SIGINT waits until the block ends; a process begun in it inherits that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


_stopping: Any = None


def _begin_process(stopping: Any) -> None:
    """What a new process does first: the signal to stop comes from the process that began it."""
    global _stopping  # noqa: PLW0603 - how an initializer hands something to the tasks of its process
    _stopping = stopping
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A killed parent can tell nobody to stop."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_apart(cfg: Config, run: Path, policy: Artifact, reward: Artifact) -> RunResult:
    if _stopping.is_set():
        return RunResult(run, False, None)
    return start_run(cfg, run, policy, reward, RunContext(_stopping.is_set))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
