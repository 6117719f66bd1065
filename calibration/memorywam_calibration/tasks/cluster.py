"""Cluster: episode tasks as tasks of Ray, whose workers may be lost without losing anything.

Nothing but bytes goes between processes: a task as JSON, and a shard, which is read as strictly as
one on the disk. A lost worker's task is done again, by another one.
"""

import contextlib
import functools
import importlib.util
import ipaddress
import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from memorywam_calibration.tasks.gather import Worker
from memorywam_calibration.tasks.tasks import EpisodeTask, done_elsewhere
from memorywam_runtime.bench.bench_machine import usable_cores
from memorywam_runtime.errors import DeviceError, InputError, MemorywamError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["LOCAL", "check_cluster", "worker_on_cluster"]

LOCAL = "local"
_NUM_RETRIES = 5
"""Of one task whose worker was lost; after that its episode is likely what kills them."""
_ANSWER_S = 5.0
_LOOPBACK_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_MISSING = (
    "--cluster needs the package ray, and found none; expected it to be installed: "
    "pip install 'memorywam[cluster]'; without --cluster this process does all"
)
_DONE, _REFUSED = b"+", b"-"


def check_cluster(address: str) -> None:
    """Refuse what no cluster could be found by, before anything else is done.

    Raises:
        InputError: Ray is not installed, no address, or nobody answers at it.
    """
    host, colon, port = address.rpartition(":")
    is_address = bool(host and colon) and "/" not in address and port.isdecimal()
    if address != LOCAL and not is_address:
        raise InputError(
            f"found --cluster {address!r}; expected 'local', or HOST:PORT as `ray start --head` "
            "prints it, on a machine that has joined with `ray start --address HOST:PORT`"
        )
    if importlib.util.find_spec("ray") is None:
        raise InputError(_MISSING)
    if address == LOCAL:
        return
    try:  # Ray itself tries for minutes, without a word
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--cluster {address}: no cluster answers ({error}); expected one that runs, and that "
            f"this machine has joined: ray start --address {address}"
        ) from error


def worker_on_cluster(address: str) -> Worker:
    """Return a worker that hands tasks to Ray.

    Args:
        address: `local` for as many processes as cores, on the loopback interface alone and gone
            afterwards; else of a cluster that this machine belongs to, whose machines all see the
            bundle and the recordings under the same paths.

    Raises:
        InputError: Ray is not installed, or no address.
    """
    check_cluster(address)

    def done(tasks: Sequence[EpisodeTask]) -> Iterator[tuple[EpisodeTask, bytes]]:
        num_threads = tasks[0].key.num_threads
        with _connected(address, num_threads) as ray:
            remote = ray.remote(
                num_cpus=num_threads, max_retries=_NUM_RETRIES, retry_exceptions=False
            )(_answer)
            waiting = {remote.remote(msgspec.json.encode(task)): task for task in tasks}
            while waiting:
                (ready,), _ = ray.wait(list(waiting), num_returns=1)
                task = waiting.pop(ready)
                yield task, _shard(ray, ready, task)

    return done


def _answer(content: bytes) -> bytes:
    """Do a task, in a process of Ray's; return a shard, or why it was refused."""
    try:
        return _DONE + done_elsewhere(msgspec.json.decode(content, type=EpisodeTask))
    except MemorywamError as error:
        return _REFUSED + str(error).encode()


def _shard(ray: "ModuleType", ready: Any, task: EpisodeTask) -> bytes:  # noqa: ANN401 - Ray's
    """Fetch a shard.

    Raises:
        InputError: the task was refused.
        DeviceError: its worker was lost again and again, or cannot do it.
    """
    try:
        answer = ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        raise DeviceError(
            f"{task.key.episode}: a worker could not do it ({_lines(error)[-1]}); expected this "
            "release of memorywam, with the extra export, on every machine of the cluster"
        ) from error
    except ray.exceptions.RayError as error:
        raise DeviceError(
            f"{task.key.episode}: no answer after {_NUM_RETRIES} more tries ({_lines(error)[0]}); "
            "the machines may lack memory: use fewer workers, or more threads each, and go on with "
            "--resume"
        ) from error
    if answer[:1] != _DONE:
        raise InputError(answer[1:].decode())
    return bytes(answer[1:])


def _lines(error: Exception) -> list[str]:
    """Return the lines of what an error says, one at least."""
    return str(error).strip().splitlines() or [type(error).__name__]


@contextlib.contextmanager
def _connected(address: str, num_threads: int) -> Iterator["ModuleType"]:
    """Connect to a cluster, or start one that ends with the block."""
    with _environment(_local_variables() if address == LOCAL else {}):
        ray = _ray()  # it reads variables when it is imported
    if ray.is_initialized():
        raise InputError(
            "found Ray in use by this process; expected to start or join a cluster here: call "
            "ray.shutdown() before, or calibrate in a process of its own"
        )
    variables = _local_variables() if address == LOCAL else {}
    with _environment(variables), _temporary_folder() as folder:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        here = {
            "num_cpus": max(usable_cores(), num_threads),
            "include_dashboard": False,
            "_temp_dir": folder,
        }
        try:
            with _kept_signals():
                ray.init(address=address, **quiet, **(here if address == LOCAL else {}))
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            what = "Ray does not start here" if address == LOCAL else "no cluster answers"
            raise InputError(
                f"--cluster {address}: {what} ({error}); expected a cluster that runs, and that "
                "this machine has joined; without --cluster this process does all"
            ) from error
        try:
            if address == LOCAL:
                _check_loopback(ray)
            _check_room(ray, num_threads)
            yield ray
        finally:
            ray.shutdown()


def _local_variables() -> dict[str, str]:
    """Return what keeps a cluster of one machine to those who started it.

    Ray runs whatever reaches its ports, and by default these are open to the network. The first
    variable makes it listen on the loopback interface, on every system; the token, of which Ray
    would else keep one in the home folder, keeps out other users of the machine.
    """
    return {
        _LOOPBACK_VARIABLE: "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _token(),
    }


@functools.cache
def _token() -> str:
    """Return a secret of this process; Ray reads it once."""
    return secrets.token_hex(32)


def _check_loopback(ray: "ModuleType") -> None:
    """Refuse to go on if others could reach the cluster."""
    found = [str(node["NodeManagerAddress"]) for node in ray.nodes()]
    if not all(ipaddress.ip_address(one).is_loopback for one in found):
        raise InputError(
            f"found Ray at {', '.join(found)}; expected the loopback interface alone: this process "
            f"had imported Ray before; set {_LOOPBACK_VARIABLE}=0 before it does, or calibrate in "
            "a process of its own"
        )


def _check_room(ray: "ModuleType", num_threads: int) -> None:
    """Refuse a cluster in which no task would ever start."""
    most = max((node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]),
               default=0.0)  # fmt: skip
    if most < num_threads:
        raise InputError(
            f"found machines of at most {most:g} cores in the cluster; expected one of "
            f"{num_threads}, for as many threads: name fewer with --threads"
        )


@contextlib.contextmanager
def _kept_signals() -> Iterator[None]:
    """Keep what the program does when it is told to end: Ray sets its own way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    """Make a folder for Ray's sockets: their paths must be short, and usual folders may be long."""
    place = "/tmp" if Path("/tmp").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="mw-ray-", dir=place, ignore_cleanup_errors=True) as at:
        yield at


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a while; those of the user come back."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _ray() -> "ModuleType":
    """Return Ray, which tells nobody that it is used.

    Raises:
        InputError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise InputError(f"{_MISSING} ({error})") from error
    return ray
