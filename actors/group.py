"""A role's workers behind one interface: in this process, or as Ray actors. The numbers are the same."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from actors.spawn import Answer, Host, failure_of, pack, unpack
from framework.errors import GoldilocksError, RunError, one_line
from framework.types import Rows

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Span = tuple[float, float]
Join = Callable[[list[Any]], Any]
"""Makes one result of the workers' results."""


class Pending(Generic[T_co]):
    """A result under way."""

    spans: tuple[Span, ...] = ()
    """When each worker computed, in wall-clock seconds; empty before `get` has returned."""

    @property
    def busy_seconds(self) -> float:
        """Seconds during which at least one worker computed; 0 before `get` has returned."""
        return covered_seconds(self.spans)

    def get(self, timeout_seconds: float | None = None) -> T_co:
        """The result, waited for up to `timeout_seconds`; None is the group's own deadline.

        Raises what the worker raised if it is a GoldilocksError; a RunError where it raised something else, died, or
        gave no answer in time.
        """
        raise NotImplementedError


class Done(Pending[T_co]):
    """A result that was there from the start."""

    def __init__(self, value: T_co) -> None:
        self._value = value

    def get(self, timeout_seconds: float | None = None) -> T_co:
        return self._value


class Chained(Pending[T_co]):
    """A result that one more call makes of another. Both calls are remembered by the roles that answer them."""

    def __init__(self, first: Pending[T], then: Callable[[T], T_co]) -> None:
        self._first, self._then = first, then

    def get(self, timeout_seconds: float | None = None) -> T_co:
        return self._then(self._first.get(timeout_seconds))


class _Answers(Pending[Any]):
    """Collects the answers of some workers once, joins them, and keeps the result."""

    def __init__(self, collect: Callable[[float | None], list[Answer]], join: Join) -> None:
        self._collect, self._join = collect, join
        self._joined: tuple[Any] | None = None

    def get(self, timeout_seconds: float | None = None) -> Any:
        if self._joined is None:
            answers = self._collect(timeout_seconds)
            self.spans = tuple((answer.started, answer.stopped) for answer in answers)
            self._joined = (self._join([answer.result for answer in answers]),)
        return self._joined[0]


class Slot(Protocol):
    """Where a worker runs and what it may use."""

    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def cpus(self) -> float: ...
    @property
    def gpus(self) -> float: ...
    @property
    def threads(self) -> int: ...
    @property
    def scheduling(self) -> Any: ...


def shares(num_rows: int, unit: int, workers: int) -> list[tuple[int, int]]:
    """Contiguous `(start, stop)` of every worker in multiples of `unit`, as even as that allows; the last may be empty."""
    assert unit > 0, f"a share must have a unit of at least one row, not {unit}"
    units = -(-num_rows // unit)
    stops, taken = [], 0
    for worker in range(workers):
        taken += units // workers + (worker < units % workers)
        stops.append(min(taken * unit, num_rows))
    return list(zip([0, *stops], stops, strict=False))


def covered_seconds(spans: Sequence[Span]) -> float:
    """Seconds that lie in at least one span; overlaps count once."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


class Group:
    """The workers of one role. Base of the two kinds, which say how one method is sent to some workers."""

    role: str
    size: int
    _started: Pending[None]
    _folder: str | None = None
    """Of the weights that the workers have loaded since they were built."""

    def _send(self, method: str, args_by_rank: Sequence[tuple[Any, ...]], join: Join) -> Pending[Any]:
        """Call worker i with the i-th arguments."""
        raise NotImplementedError

    def close(self) -> None:
        """Let the workers go."""
        raise NotImplementedError

    def ready(self) -> Pending[None]:
        """Every worker is built. Waiting is optional: calls queue behind the building."""
        return self._started

    def _start(self) -> Pending[None]:
        return self._send("start", [()] * self.size, lambda results: None)

    def call(self, method: str, *args: Any) -> Pending[Any]:
        """The result of a method of worker 0."""
        return self._send(method, [args], lambda results: results[0])

    def call_all(self, method: str, *args: Any) -> Pending[list[Any]]:
        """The results of a method of every worker, by rank."""
        return self._send(method, [args] * self.size, lambda results: results)

    def scatter(self, method: str, rows: Rows, *args: Any, unit: int, join: Join) -> Pending[Any]:
        """The joined results of `method(share, *args)` over contiguous shares of `rows`, in row order.

        Shares are multiples of `unit`, the rows of one forward pass: each pass then sees the same rows however many
        workers there are, and the numbers do not depend on that. Workers without rows are left alone; no rows at all
        make one empty share, so that the result still has its shape.
        """
        cut = [share for share in shares(len(rows), unit, self.size) if share[1] > share[0]] or [(0, 0)]
        return self._send(method, [(rows.rows(*share), *args) for share in cut], join)

    def scatter_to_all(self, method: str, rows: Rows, *args: Any, unit: int, join: Join) -> Pending[Any]:
        """As `scatter`, with an empty share for each worker that `scatter` would leave alone.

        For methods in which workers wait for each other: where one were not called, the others would hang.
        """
        cut = shares(len(rows), unit, self.size)
        return self._send(method, [(rows.rows(*share), *args) for share in cut], join)

    def divide(self, method: str, rows: Rows, *args: Any, join: Join) -> Pending[Any]:
        """The joined results of `method(rows, (rank, size), *args)` of workers that each hold a part, by rank."""
        return self._send(method, [(rows, (rank, self.size), *args) for rank in range(self.size)], join)

    def load(self, folder: str) -> Pending[list[Any]]:
        """Every worker's `load(folder)`; one that Ray has to build again later loads the folder too."""
        loading, self._folder = self.call_all("load", folder), folder
        return loading


class InlineGroup(Group):
    """Workers in this process. A call runs when it is made, one worker after the other."""

    def __init__(
        self, role: str, worker: Callable[..., Any], args: tuple[Any, ...] = (), replicas: int = 1, threads: int = 1
    ) -> None:
        """Build `replicas` workers as `worker(*args)`; their tensor operations use `threads` threads."""
        self.role, self.size = role, replicas
        names = [role] if replicas == 1 else [f"{role}-{rank}" for rank in range(replicas)]
        self._hosts = [Host(name, worker, args, threads) for name in names]
        self._started = self._start()

    def _send(self, method: str, args_by_rank: Sequence[tuple[Any, ...]], join: Join) -> Pending[Any]:
        answers: list[Answer] = []
        failure: GoldilocksError | None = None
        try:
            # Unpacked now: a packed answer still shares its memory with the worker.
            for host, args in zip(self._hosts, args_by_rank, strict=False):
                answers.append(unpack(host.run(method, pack(args))))
        except GoldilocksError as error:
            failure = error

        def collect(timeout_seconds: float | None) -> list[Answer]:
            if failure is not None:  # kept until the result is asked for, as it would be with actors
                raise failure
            return answers

        return _Answers(collect, join)

    def close(self) -> None:
        self._hosts = []


class RayGroup(Group):
    """Workers as named Ray actors, one to a slot. Calls to different workers run at the same time."""

    def __init__(
        self,
        role: str,
        worker: Callable[..., Any],
        args: tuple[Any, ...],
        slots: Sequence[Slot],
        *,
        namespace: str,
        restarts: int = 0,
        call_timeout_seconds: float = 1800.0,
    ) -> None:
        """Begin to build one worker per slot as `worker(*args)`, found under the slot's name in the run's `namespace`;
        `ready` tells when they are built.

        Args:
            restarts: how often a dead actor is rebuilt and its call repeated. Only for workers whose
                calls, `load` excepted, change nothing in them: a repeated update would be a second update.
            call_timeout_seconds: the deadline of `Pending.get`.
        """
        self.role, self.size = role, len(slots)
        self._deadline = call_timeout_seconds
        self._actors = [_start_actor(slot, worker, args, namespace, restarts) for slot in slots]
        ids = [actor._actor_id.hex() for actor in self._actors]
        self._names = dict(zip(ids, (slot.name for slot in slots), strict=True))
        self._started = self._start()

    def _send(self, method: str, args_by_rank: Sequence[tuple[Any, ...]], join: Join) -> Pending[Any]:
        # Constant names group the calls of a stage in Ray's dashboard.
        ray, task = _ray(), f"{self.role}.{method}"
        calls = zip(self._actors, args_by_rank, strict=False)
        refs = [actor.run.options(name=task).remote(method, pack(args), self._folder) for actor, args in calls]

        def collect(timeout_seconds: float | None) -> list[Answer]:
            seconds = self._deadline if timeout_seconds is None else timeout_seconds
            try:
                return [unpack(part) for part in ray.get(refs, timeout=seconds)]
            except ray.exceptions.RayError as error:
                raise failure_in_ray(error, task, self._names, seconds) from error

        return _Answers(collect, join)

    def close(self) -> None:
        ray = _ray()
        for actor in self._actors if ray.is_initialized() else ():
            ray.kill(actor, no_restart=True)
        self._actors = []


def failure_in_ray(error: BaseException, task: str, names: Mapping[str, str], waited_seconds: float) -> GoldilocksError:
    """What an exception of Ray's in `task`, a `role.method` or a fit, means in one line: which worker, where, why.

    `names` are those of the workers, by Ray's number of their actor.
    """
    kinds, text = _ray().exceptions, str(error)
    if isinstance(error, kinds.RayTaskError):
        return failure_of(error.cause, task)
    if isinstance(error, kinds.GetTimeoutError):
        return RunError(f"{task} gave no answer within {waited_seconds:g} s")
    why = one_line(error)[:300]
    if isinstance(error, kinds.OutOfMemoryError):
        return RunError(f"{task}: the host ran out of memory and Ray killed the worker: {why}")
    if not isinstance(error, kinds.RayActorError):
        return failure_of(error, task)
    if "node has died" in text or "node was terminated" in text:
        why = "its node was lost"
    elif "worker process has died" in text:
        why = "its process was killed or crashed (a crash, a kill, or the system's own out-of-memory killer)"
    role, _, method = task.partition(".")
    hosts = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.strip().startswith("ip:")]
    where = f" on {hosts[0]}" if hosts else ""
    return RunError(f"{names.get(error.actor_id or '', role)} died in {method or 'its work'}{where}: {why}")


def _ray() -> Any:
    """Ray, imported late: it reads an environment that a session sets, and inline runs need none of it."""
    import ray

    return ray


def _start_actor(slot: Slot, worker: Callable[..., Any], args: tuple[Any, ...], namespace: str, restarts: int) -> Any:
    """A handle to a new actor in the slot."""
    options: dict[str, Any] = {"max_restarts": restarts, "max_task_retries": restarts}
    options |= {"num_cpus": slot.cpus, "num_gpus": slot.gpus, "scheduling_strategy": slot.scheduling}
    if slot.threads > 1:
        # Single-threaded workers use the session's environment: one of its own costs a second of start-up.
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        options["runtime_env"] = {"env_vars": dict.fromkeys(names, str(slot.threads))}
    try:
        # The class is what Ray's dashboard groups actors by.
        host = type(f"{slot.role.title()}Host", (Host,), {})
        actor = _ray().remote(host).options(name=slot.name, namespace=namespace, **options)
        return actor.remote(slot.name, worker, args, slot.threads, slot.gpus == 0, os.getcwd())
    except _ray().exceptions.ActorAlreadyExistsError as error:
        lives = f"{slot.name} already lives in namespace {namespace}"
        raise RunError(f"{lives}: is the same run going on elsewhere?") from error
