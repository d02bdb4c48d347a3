"""What surrounds every worker, the same inline and in an actor: threads, clock, memory and failures. Free of Ray."""

import io
import os
import pickle
import resource
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framework.errors import GoldilocksError, RunError, first_line

Packed = tuple[bytes, list[np.ndarray]]


@dataclass(frozen=True)
class Answer:
    """A method's result and when it ran, in seconds of this host's wall clock."""

    result: Any
    started: float
    stopped: float


class Host:
    """Holds one worker: builds it when first asked, runs its methods, and names what fails.

    Arguments and results are packed inline as well: a worker that goes on changing a tensor it has returned must not
    change the numbers in one of the two cases only.
    """

    def __init__(
        self,
        name: str,
        worker: Callable[..., Any],
        args: tuple[Any, ...],
        threads: int,
        hide_devices: bool = False,
        folder: str | None = None,
    ) -> None:
        if folder is not None and os.path.isdir(folder):
            # Relative paths, and modules of the user's own, mean what they mean where the command was given.
            os.chdir(folder)
        if hide_devices:
            # Ray hides devices only from workers that claim some; one without a share must see none.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self.name, self.threads = name, threads
        self._build, self._args = worker, args
        self._worker: Any = None

    def __repr__(self) -> str:
        return self.name

    def run(self, method: str, packed: Packed, folder: str | None = None) -> Packed:
        """The packed `Answer` of a method to packed arguments; raises what `failure_of` makes of an error.

        Two names are the host's own: `start` only builds the worker, `peak_rss_mb` is this process's memory. A worker
        that has to be built again also loads `folder`, the weights that the group has loaded since it was made.
        """
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        try:
            args = unpack(packed)
            started, clock = time.time(), time.perf_counter()
            result = self._dispatch(method, args, folder)
            return pack(Answer(result, started, started + time.perf_counter() - clock))
        except GoldilocksError as error:
            raise failure_of(error, f"{self.name}.{method}") from error.__cause__
        except Exception as error:
            raise failure_of(error, f"{self.name}.{method}") from error

    def _dispatch(self, method: str, args: tuple[Any, ...], folder: str | None) -> Any:
        if method == "peak_rss_mb":
            return peak_rss_mb()
        # Building here and not in the constructor: Ray reports a failed constructor as text only, and an
        # actor that Ray restarted builds its worker anew on its next call.
        if self._worker is None:
            self._worker = self._build(*self._args)
            if folder is not None:
                self._worker.load(folder)
        return None if method == "start" else getattr(self._worker, method)(*args)


def failure_of(error: BaseException, task: str) -> GoldilocksError:
    """What an exception raised in `task` means to a reader of one line; the traceback is attached as a note.

    An error of ours stays itself. Anything else becomes a RunError that names the task, this host and the exception at
    the bottom of the explicit chain.
    """
    note = f"raised in {task}\n" + "".join(traceback.format_exception(error))
    failure = error
    if not isinstance(failure, GoldilocksError):
        while error.__cause__ is not None:
            error = error.__cause__
        reason = first_line(error, "no message")
        cause = f"{type(error).__name__}: {reason}"
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            where = "host" if isinstance(error, MemoryError) else "GPU"
            cause = f"out of {where} memory: lower the batch or rows per pass ({reason})"
        failure = RunError(f"{task} failed on {socket.gethostname()}: {cause}")
    failure.add_note(note)
    return failure


def peak_rss_mb() -> float:
    """The most resident memory that this process has held, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


class _Pickler(pickle.Pickler):
    """Sets tensors aside as raw bytes; everything else pickles as usual."""

    arrays: list[np.ndarray]

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Tensor):
            return None
        # reshape before view: a 0-dimensional tensor has no bytes to view; bfloat16 has no NumPy type.
        flat = obj.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        self.arrays.append(flat.numpy())
        return len(self.arrays) - 1, obj.dtype, tuple(obj.shape)


class _Unpickler(pickle.Unpickler):
    arrays: list[np.ndarray]

    def persistent_load(self, pid: Any) -> Tensor:
        index, dtype, shape = pid
        if 0 in shape:
            return torch.empty(shape, dtype=dtype)
        # A copy, because Ray's arrays are read-only views of its shared store.
        return torch.from_numpy(self.arrays[index].copy()).view(dtype).reshape(shape)


def pack(value: Any) -> Packed:
    """A value as bytes plus one array per tensor: twice as fast as Ray's own way, and safe to write to.

    Tensors arrive on the CPU, contiguous and without gradient history.
    """
    file = io.BytesIO()
    pickler = _Pickler(file, protocol=5)
    pickler.arrays = []
    pickler.dump(value)
    return file.getvalue(), pickler.arrays


def unpack(packed: Packed) -> Any:
    """The value that was packed."""
    unpickler = _Unpickler(io.BytesIO(packed[0]))
    unpickler.arrays = packed[1]
    return unpickler.load()
