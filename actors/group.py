"""A role's workers behind one interface: in this process, or as Ray actors. The numbers are the same."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from actors.spawn import Answer, Host, pack, unpack
from framework.errors import GoldilocksError, RunError, one_line
from framework.types import Rows

T_co = TypeVar("T_co", covariant=True)
Span = tuple[float, float]
Join = Callable[[list[Any]], Any]


class Pending(Protocol[T_co]):
    """A result under way."""

    @property
    def spans(self) -> tuple[Span, ...]:
        """When each worker computed, in wall-clock seconds; empty before `get` has returned."""

    @property
    def busy_seconds(self) -> float:
        """Seconds during which at least one worker computed; 0 before `get` has returned."""

    def get(self, timeout_seconds: float | None = None) -> T_co:
        """The result, waited for.

        Args:
            timeout_seconds: None is the group's own deadline.

        Raises:
            GoldilocksError: what the worker raised; a RunError where it raised something else, died,
                or gave no answer in time.
        """


class Group(Protocol):
    """The workers of one role."""

    role: str
    size: int

    def ready(self) -> Pending[None]:
        """Every worker is built. Waiting is optional: calls queue behind the building."""

    def call(self, method: str, *args: Any) -> Pending[Any]:
        """The result of a method of worker 0."""

    def call_all(self, method: str, *args: Any) -> Pending[list[Any]]:
        """The results of a method of every worker, by rank."""

    def scatter(self, method: str, rows: Rows, *args: Any, unit: int, join: Join) -> Pending[Any]:
        """The joined results of `method(share, *args)` over contiguous shares of `rows`, in row order.

        Shares are multiples of `unit`, the rows of one forward pass: each pass then sees the same rows
        however many workers there are, and the numbers do not depend on that. `join` makes one result
        of the shares' results.
        """

    def divide(self, method: str, rows: Rows, *args: Any, join: Join) -> Pending[Any]:
        """The joined results of `method(rows, (rank, size), *args)` of every worker, by rank.

        For workers that each hold a part of the role: all see all rows.
        """

    def close(self) -> None:
        """Let the workers go."""


class Seat(Protocol):
    """Where a worker runs and what it may use."""

    @property
    def name(self) -> str: ...
    @property
    def cpus(self) -> float: ...
    @property
    def gpus(self) -> float: ...
    @property
    def threads(self) -> int: ...
    @property
    def scheduling(self) -> Any: ...


def shares(num_rows: int, unit: int, workers: int) -> list[tuple[int, int]]:
    """Contiguous `(start, stop)` per worker in multiples of `unit`, as even as that allows.

    Workers without rows get no share; no rows at all make one empty share, so that the result still
    has its shape.
    """
    assert unit > 0, f"a share must have a unit of at least one row, not {unit}"
    units = -(-num_rows // unit)
    stops, taken = [], 0
    for worker in range(workers):
        taken += units // workers + (worker < units % workers)
        stops.append(min(taken * unit, num_rows))
    cut = [(start, stop) for start, stop in zip([0, *stops], stops, strict=False) if stop > start]
    return cut or [(0, 0)]


def covered_seconds(spans: Sequence[Span]) -> float:
    """Seconds that lie in at least one span; overlaps count once."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


class Done:
    """A result that was there from the start."""

    spans: tuple[Span, ...] = ()
    busy_seconds = 0.0

    def __init__(self, value: Any) -> None:
        self._value = value

    def get(self, timeout_seconds: float | None = None) -> Any:
        """The value."""
        return self._value


class _Answers:
    """Collects the answers of some workers once, joins them, and keeps the result."""

    def __init__(self, join: Join) -> None:
        self._join = join
        self._joined: tuple[Any] | None = None
        self.spans: tuple[Span, ...] = ()

    @property
    def busy_seconds(self) -> float:
        return covered_seconds(self.spans)

    def get(self, timeout_seconds: float | None = None) -> Any:
        if self._joined is None:
            answers = self._collect(timeout_seconds)
            self.spans = tuple((answer.started, answer.stopped) for answer in answers)
            self._joined = (self._join([answer.result for answer in answers]),)
        return self._joined[0]

    def _collect(self, timeout_seconds: float | None) -> list[Answer]:
        raise NotImplementedError


class _InlineAnswers(_Answers):
    """Runs at once; a failure is kept until the result is asked for, as it would be with actors."""

    def __init__(self, calls: Sequence[tuple[Host, tuple[Any, ...]]], method: str, join: Join) -> None:
        super().__init__(join)
        self._failure: GoldilocksError | None = None
        self._answers: list[Answer] = []
        try:
            # Unpacked now: a packed answer still shares its memory with the worker.
            self._answers = [unpack(host.run(method, pack(args))) for host, args in calls]
        except GoldilocksError as error:
            self._failure = error

    def _collect(self, timeout_seconds: float | None) -> list[Answer]:
        if self._failure is not None:
            raise self._failure
        return self._answers


class _RayAnswers(_Answers):
    """References to answers, and the group that knows whose they are."""

    def __init__(self, refs: Sequence[Any], method: str, join: Join, group: "RayGroup") -> None:
        super().__init__(join)
        self._refs = list(refs)
        self._method = method
        self._group = group

    def _collect(self, timeout_seconds: float | None) -> list[Answer]:
        ray = _ray()
        seconds = self._group.call_timeout_seconds if timeout_seconds is None else timeout_seconds
        try:
            packed = ray.get(self._refs, timeout=seconds)
        except ray.exceptions.RayError as error:
            raise self._group.translate(error, self._method, seconds) from error
        return [unpack(part) for part in packed]


class _Calls:
    """The calls of a group, given a way to send one method to some workers."""

    role: str
    size: int
    _started: Pending[None]

    def _send(self, method: str, args_by_rank: Sequence[tuple[Any, ...]], join: Join) -> Pending[Any]:
        """Call worker i with the i-th arguments."""
        raise NotImplementedError

    def ready(self) -> Pending[None]:
        return self._started

    def _start(self) -> Pending[None]:
        return self._send("start", [()] * self.size, lambda results: None)

    def call(self, method: str, *args: Any) -> Pending[Any]:
        return self._send(method, [args], lambda results: results[0])

    def call_all(self, method: str, *args: Any) -> Pending[list[Any]]:
        return self._send(method, [args] * self.size, lambda results: results)

    def scatter(self, method: str, rows: Rows, *args: Any, unit: int, join: Join) -> Pending[Any]:
        cut = shares(len(rows), unit, self.size)
        return self._send(method, [(rows.rows(start, stop), *args) for start, stop in cut], join)

    def divide(self, method: str, rows: Rows, *args: Any, join: Join) -> Pending[Any]:
        return self._send(method, [(rows, (rank, self.size), *args) for rank in range(self.size)], join)


def _names(role: str, size: int) -> list[str]:
    return [role] if size == 1 else [f"{role}-{rank}" for rank in range(size)]


class InlineGroup(_Calls):
    """Workers in this process. A call runs when it is made, one worker after the other."""

    def __init__(
        self,
        role: str,
        worker: Callable[..., Any],
        args: tuple[Any, ...] = (),
        replicas: int = 1,
        threads: int = 1,
    ) -> None:
        """Build `replicas` workers as `worker(*args)`; their tensor operations use `threads` threads."""
        self.role = role
        self.size = replicas
        self._hosts = [Host(name, worker, args, threads) for name in _names(role, replicas)]
        self._started = self._start()

    def _send(self, method: str, args_by_rank: Sequence[tuple[Any, ...]], join: Join) -> Pending[Any]:
        return _InlineAnswers(list(zip(self._hosts, args_by_rank, strict=False)), method, join)

    def close(self) -> None:
        self._hosts = []


class RayGroup(_Calls):
    """Workers as named Ray actors, one to a seat. Calls to different workers run at the same time."""

    def __init__(
        self,
        role: str,
        worker: Callable[..., Any],
        args: tuple[Any, ...],
        seats: Sequence[Seat],
        *,
        namespace: str,
        restarts: int = 0,
        call_timeout_seconds: float = 1800.0,
    ) -> None:
        """Begin to build one worker per seat as `worker(*args)`; `ready` tells when they are built.

        Args:
            namespace: the run's; an actor is found under its seat's name in it.
            restarts: how often a dead actor is rebuilt and its call repeated. Only for workers whose
                calls change nothing in them: a repeated update would be a second update.
            call_timeout_seconds: the deadline of `Pending.get`.
        """
        self.role = role
        self.size = len(seats)
        self.call_timeout_seconds = call_timeout_seconds
        self._actors: list[Any] = []
        for seat in seats:
            self._actors.append(_start_actor(seat, worker, args, namespace, restarts))
        self._name_of = {
            actor._actor_id.hex(): seat.name for actor, seat in zip(self._actors, seats, strict=True)
        }
        self._started = self._start()

    def _send(self, method: str, args_by_rank: Sequence[tuple[Any, ...]], join: Join) -> Pending[Any]:
        # Constant names group the calls of a stage in Ray's dashboard.
        task = f"{self.role}.{method}"
        refs = [
            actor.run.options(name=task).remote(method, pack(args))
            for actor, args in zip(self._actors, args_by_rank, strict=False)
        ]
        return _RayAnswers(refs, method, join, self)

    def close(self) -> None:
        ray = _ray()
        for actor in self._actors if ray.is_initialized() else ():
            ray.kill(actor, no_restart=True)
        self._actors = []

    def translate(self, error: Exception, method: str, waited_seconds: float) -> GoldilocksError:
        """What a failure in Ray means to a reader of one line: which worker, where, why."""
        kinds = _ray().exceptions
        if isinstance(error, kinds.RayTaskError):
            cause = error.cause
            if isinstance(cause, GoldilocksError):
                return cause
            return RunError(
                f"{self.role}.{method} failed on {error.ip}: {type(cause).__name__}: {_last_line(cause)}"
            )
        if isinstance(error, kinds.GetTimeoutError):
            return RunError(f"{self.role}.{method} gave no answer within {waited_seconds:g} s")
        if isinstance(error, kinds.OutOfMemoryError):
            where = f"{self.role}.{method}: the host ran out of memory and Ray killed the worker"
            return RunError(f"{where}: {_one_line(error)}")
        if isinstance(error, kinds.RayActorError):
            name = self._name_of.get(error.actor_id or "", self.role)
            return RunError(f"{name} died in {method}{_host(error)}: {_death(error)}")
        return RunError(f"{self.role}.{method} failed in Ray: {type(error).__name__}: {_one_line(error)}")


def _ray() -> Any:
    """Ray, imported late: it reads an environment that a session sets, and inline runs need none of it."""
    import ray

    return ray


def _start_actor(
    seat: Seat, worker: Callable[..., Any], args: tuple[Any, ...], namespace: str, restarts: int
) -> Any:
    """A handle to a new actor in the seat."""
    options: dict[str, Any] = {
        "name": seat.name,
        "namespace": namespace,
        "num_cpus": seat.cpus,
        "num_gpus": seat.gpus,
        "scheduling_strategy": seat.scheduling,
        "max_restarts": restarts,
        "max_task_retries": restarts,
    }
    if seat.threads > 1:
        # Single-threaded workers use the session's environment: one of its own costs a second of start-up.
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        options["runtime_env"] = {"env_vars": dict.fromkeys(names, str(seat.threads))}
    try:
        actor = _ray().remote(Host).options(**options)
        return actor.remote(seat.name, worker, args, seat.threads, seat.gpus == 0)
    except _ray().exceptions.ActorAlreadyExistsError as error:
        raise RunError(
            f"{seat.name} already lives in namespace {namespace}: is the same run going on elsewhere?"
        ) from error


def _death(error: Any) -> str:
    """Why an actor died: its constructor, its node, or its process."""
    text = str(error)
    if getattr(error, "actor_init_failed", False):
        return f"it could not be built: {_last_line(error)}"
    if "node has died" in text or "node was terminated" in text:
        return "its node was lost"
    if "worker process has died" in text:
        return "its process was killed or crashed (a crash, a kill, or the system's own out-of-memory killer)"
    return _one_line(error)


def _host(error: Any) -> str:
    """` on ADDRESS`, where Ray's message tells it."""
    found = [
        line.split(":", 1)[1].strip() for line in str(error).splitlines() if line.strip().startswith("ip:")
    ]
    return f" on {found[0]}" if found else ""


def _one_line(error: Any) -> str:
    return one_line(error)[:300]


def _last_line(error: Any) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else "no message"
