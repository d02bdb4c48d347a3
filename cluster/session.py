"""A connection to Ray: a session on this machine, or a cluster that is already up.

Ray reads its environment when it is imported, so it is imported here only after the environment is set. Nothing is ever
stopped that was not started here.
"""

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.plan import Node, local_node
from cluster.spec import ClusterSpec
from framework.errors import UserError, one_line

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("framework", "actors", "jobs", "cluster")
# Ray starts workers with this environment; a thread count of its own is set per actor where it differs.
_SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_PASSED_ON = (
    "GOLDILOCKS_SHARED", "HF_HUB_OFFLINE", "HF_HOME", "TOKENIZERS_PARALLELISM",
    "WANDB_MODE", "WANDB_ENTITY", "WANDB_BASE_URL", "MLFLOW_TRACKING_URI", "TRACKIO_DIR", "TRACKIO_SPACE_ID",
)  # fmt: skip

LONGEST_SOCKET = 107
"""Bytes that the name of a Unix socket may have."""
_SOCKET = "/ray/session_2000-01-01_00-00-00_000000_1234567/sockets/plasma_store"
"""What Ray adds to its temporary folder."""

_is_starting = threading.Event()
"""Set while Ray starts here. A signal that this process group gets, as by `timeout`, is ours to answer: Ray's processes,
which would end at it with nothing saved, have a group of their own. They end with this process all the same."""
os.register_at_fork(after_in_child=lambda: os.setpgrp() if _is_starting.is_set() else None)


@contextmanager
def connect(address: str | None, spec: ClusterSpec, namespace: str) -> Iterator[None]:
    """A connection to Ray for the length of a `with` block; names of actors are unique in its `namespace`.

    `"local"` starts Ray on this machine with the resources of `spec.local`. `"auto"` or `host:port` attaches to a
    cluster that is up. None attaches inside a submitted job and starts locally elsewhere. Where this process is
    connected already, that connection is used and left open. A UserError where no cluster answers at the address, it
    refuses the token or runs another Ray, and where none can be started here.
    """
    address = _where(address)
    _prepare_environment(address)
    import ray

    if ray.is_initialized():
        yield
        return
    if address not in ("local", "auto"):
        _assert_listening(address)
    options = _local_options(spec) if address == "local" else _attach_options()
    # In the dashboard's list of jobs; what a job was submitted with comes before it.
    metadata = {"job_name": namespace, "framework": "goldilocks", "layout": spec.name}
    options["job_config"] = ray.job_config.JobConfig(metadata=metadata)
    held = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _is_starting.set()
        ray.init(address=address, namespace=namespace, log_to_driver=False, logging_level=logging.ERROR, **options)
    except ray.exceptions.AuthenticationError as error:
        raise UserError(
            f"Ray at {address} wants a token: run `ray get-auth-token --generate` where its head runs, copy "
            "~/.ray/auth_token to this machine and export RAY_AUTH_MODE=token"
        ) from error
    except Exception as error:
        reason = one_line(error)[:200]
        told = f"cannot connect to Ray at {address}: {reason} (is it up? `ray status` tells)"
        if address == "local":
            told = f"Ray does not start on this machine: {reason}; try again, or set backend=inline"
        raise UserError(told) from error
    finally:  # Ray would end this process at a SIGTERM, with nothing saved
        _is_starting.clear()
        if threading.current_thread() is threading.main_thread():
            for number, handler in held.items():
                signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def assert_can_start(address: str | None) -> None:
    """Refuse, before anything is fitted, a session on this machine whose sockets would have names that are too long."""
    if _where(address) != "local":
        return
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "TMPDIR")
    room = LONGEST_SOCKET - len(_SOCKET) - len(os.fsencode(folder := os.environ.get(name, "/tmp")))
    if room < 0:
        too_long = f"{name}={folder} is {-room} letters too long for the sockets of Ray in it"
        raise UserError(f"{too_long}: export RAY_TMPDIR=/tmp or another short folder")


def _where(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "local"


def live_nodes() -> list[Node]:
    """The live machines of the connected cluster and all they have, busy or not."""
    import ray

    alive = [(node["NodeManagerAddress"], node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return [Node(name, has.get("CPU", 0.0), has.get("GPU", 0.0)) for name, has in alive]


def worker_environment() -> dict[str, str]:
    """The environment of every worker: one thread, this checkout importable, the user's offline settings."""
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**_SINGLE_THREADED, **passed_on, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _prepare_environment(address: str) -> None:
    """Set what Ray reads at import; whatever the user has set stays."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == "local":
        # Nodes elsewhere could not join, so that Ray listens on the loopback device only, as it does on a laptop of Apple's.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Clients other than ray.init("auto") never turn tokens on by themselves, and with a token the mode also
    # works against a cluster that asks for none.
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    if "RAY_AUTH_TOKEN" in os.environ or token.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    elif address == "local" and "RAY_AUTH_MODE" not in os.environ:
        # Left alone, Ray would write a token into the user's home, and every later head would ask for it.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))


def _assert_listening(address: str) -> None:
    """Raise a UserError where nothing listens: Ray itself would try for more than a minute."""
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdigit():
        raise UserError(f"address {address!r}: give local, auto or the host:port of a Ray head")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise UserError(f"no Ray head listens at {address} ({error}): is it up? `ray status` tells") from error


def _local_options(spec: ClusterSpec) -> dict[str, Any]:
    """Arguments of `ray.init` for a session on this machine. Uploads nothing."""
    assert_can_start("local")
    # Messages up to this size travel with the call instead of through the object store, in half the time.
    os.environ.setdefault("RAY_max_direct_call_object_size", str(2**20))
    node, environment = local_node(spec), {"env_vars": worker_environment()}
    resources = {"num_cpus": int(node.cpus), "num_gpus": int(node.gpus)}
    return {**resources, "include_dashboard": False, "runtime_env": environment}


def _attach_options() -> dict[str, Any]:
    """Arguments of `ray.init` for a cluster that is up: the packages travel, unless a job brought them."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    variables = {name: value for name, value in worker_environment().items() if name != "PYTHONPATH"}
    modules = [str(ROOT / package) for package in _PACKAGES]
    return {"runtime_env": {"env_vars": variables, "py_modules": modules}}
