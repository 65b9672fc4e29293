"""Ray workers: the actors of a cluster get units one by one, and a lost actor costs only the unit that it was making.

An actor makes files and sends their bytes; only the stage's process commits them. An actor computes in the same environment
and folder as the stage's process, so on a CPU it makes the same bytes.
"""

import contextlib
import logging
import os
import re
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qthink_core.artifacts.files import Writer
from qthink_core.errors import DataError, ParamError, QThinkError

# A unit's files by name, and its counts.
Made = tuple[dict[str, bytes], dict[str, int]]

# Prefixes of the variables that decide the bits of a result (process.pin_numerics) or that engines read.
CARRIED = ("OMP_", "MKL_", "OPENBLAS_", "ATEN_", "ONEDNN_", "TOKENIZERS_", "CUBLAS_", "TORCH_", "VLLM_")
# After this many deaths of its worker's process on nodes that are alive, a unit itself counts as the cause.
DEATHS = 3
PATIENCE_S, CONNECT_S = 30.0, 5.0


class Worker:
    """An actor: it works in the folder of the stage's process, and makes units with a model that it loads once."""

    def __init__(self, maker: Any) -> None:
        self.maker = maker
        self.make: Any = None
        self.held = contextlib.ExitStack()

    def start(self, folder: Path, work: Path) -> str:
        """The id of the node; from then on the actor works in `folder`.

        Raises DataError where `work` is not seen from the node.
        """
        import ray

        node = ray.get_runtime_context().get_node_id()
        if not work.is_dir():
            raise DataError(
                f"worker on node {node_name(node)} cannot see {work}: put the project on a file system of all nodes"
            )
        os.chdir(folder)
        return str(node)

    def unit(self, name: str, payload: Any) -> Made:
        """The contents of a unit's files, and its counts."""
        if self.make is None:
            self.make = self.held.enter_context(self.maker())
        files, counts = self.make(name, payload)
        return {file: contents(write) for file, write in files.items()}, dict(counts)


@dataclass
class Slot:
    """An actor that was requested; it has a node once it has started, and a unit while it makes one."""

    actor: Any
    node: str = ""
    unit: str = ""


def contents(write: Writer | bytes) -> bytes:
    """The bytes of a file of a unit."""
    if isinstance(write, bytes):
        return write
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        write(path)
        return path.read_bytes()


def made(maker: Any, units: Mapping[str, Any], work: Path, device: str) -> Iterator[tuple[str, Made]]:
    """Each unit with its files and counts, in the order in which the workers finish.

    When a worker dies, a line on stderr says so, another worker replaces it as soon as the cluster has room, and its unit is
    made again. Raises what `maker` or a unit raises, and QThinkError for a unit whose worker's process has ended three
    times.
    """
    limit, threads = workers_asked(), int(os.environ.get("OMP_NUM_THREADS", "1"))
    box, deaths, waits = work.resolve().parent.name, list[Slot](), False
    with cluster() as ray:
        actor = ray.remote(Worker).options(
            num_cpus=1 if device == "cuda" else threads,
            num_gpus=1 if device == "cuda" else 0,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        todo, idle, calls = deque(units), list[Slot](), dict[Any, Slot]()
        while todo or any(slot.unit for slot in calls.values()):
            while todo and idle:
                slot = idle.pop()
                slot.unit = todo.popleft()
                calls[slot.actor.unit.remote(slot.unit, units[slot.unit])] = slot
            for _ in range(min(len(todo), wanted(ray, device, threads, limit) - len(calls) - len(idle))):
                slot = Slot(actor.remote(maker))
                calls[slot.actor.start.remote(Path.cwd(), work.resolve())] = slot
            done, _ = ray.wait(list(calls), timeout=PATIENCE_S)
            if not done and not waits and not any(slot.node for slot in calls.values()):
                say(
                    box,
                    f"Ray has no room for a worker yet: waiting for {'a GPU' if device == 'cuda' else f'{threads} CPUs'}",
                )
                waits = True
            for ref in done:
                slot = calls.pop(ref)
                result = fetched(ray, ref)
                if isinstance(result, Exception):
                    deaths.append(slot)
                    say(box, describe_death(ray, deaths, result))
                    if slot.unit:
                        todo.appendleft(slot.unit)
                    continue
                if slot.unit:
                    yield slot.unit, result
                    slot.unit = ""
                else:
                    slot.node = result
                    deaths = [one for one in deaths if one.unit]
                idle.append(slot)


def fetched(ray: Any, ref: Any) -> Any:
    """The result of a call, or the error of a lost worker; raises what the call itself raised."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, QThinkError) else error) from None
    except ray.exceptions.RayError as error:
        # the worker was killed because memory ran out, ended with its node or before it started, or its result was lost
        return error


def wanted(ray: Any, device: str, threads: int, limit: int | None) -> int:
    """The number of workers that the cluster has room for now: one per GPU, or one per `threads` CPUs; at least one."""
    found = ray.cluster_resources()
    room = int(found.get("GPU", 0)) if device == "cuda" else int(found.get("CPU", 0)) // threads
    if limit is not None:
        room = min(room, limit) if device == "cuda" else limit
    # at least one, so that a cluster that grows on demand, or has lost all its nodes, gets a request
    return max(room, 1)


def workers_asked() -> int | None:
    """The number of workers in QTHINK_RAY_ACTORS: the exact number on CPUs, the maximum on GPUs."""
    text = os.environ.get("QTHINK_RAY_ACTORS")
    if text is not None and not re.fullmatch("0{0,9}[1-9][0-9]{0,8}", text):
        raise ParamError(f"QTHINK_RAY_ACTORS is {text!r}: give a whole number of workers, at least 1")
    return None if text is None else int(text)


def describe_death(ray: Any, deaths: Sequence[Slot], error: Exception) -> str:
    """Which worker died last, where, and with which unit; raises QThinkError when the unit was the cause DEATHS times.

    The loss of a node is not caused by a unit. Ray reports it half a minute after the worker's last sign of life, so the
    deaths are counted again each time.
    """
    last = deaths[-1]
    ray.kill(last.actor)
    lost = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
    found = re.search(r"Worker exit type: (\w+)", str(error))
    if last.node in lost:
        why = "the node was lost"
    elif isinstance(error, ray.exceptions.OutOfMemoryError):
        why = "its machine was out of memory"
    elif found:
        why = f"its process ended, {found[1]}"
    elif isinstance(error, (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)):
        why = "it does not answer"
    else:
        why = str(error).strip().partition("\n")[0]
    where = f"worker on node {node_name(last.node)}" if last.node else "a worker"
    what = f"it made {last.unit}" if last.unit else "it started"
    if sum(one.unit == last.unit and one.node not in lost for one in deaths) >= DEATHS:
        raise QThinkError(
            f"{where} died while {what} ({why}), the {DEATHS}rd death with this unit: give a worker more memory and run the "
            "same command again, which keeps finished units, or make units smaller, after which the box begins again"
        )
    return f"{where} died while {what}: {'the unit is made again' if last.unit else 'another is requested'} ({why})"


def node_name(node: str) -> str:
    """The name of a node for its operator: the name or address that it was started with, and the start of its id."""
    import ray

    names = {one["NodeID"]: one["NodeName"] for one in ray.nodes()}
    return f"{names.get(node, 'unknown')} ({node[:8]})"


def say(box: str, text: str) -> None:
    """Prints a line on stderr, after the name of the box."""
    print(f"{box}: {text}", file=sys.stderr, flush=True)


def environment() -> dict[str, str]:
    """The part of this process's environment that actors get: what decides bits, and the paths of modules."""
    carried = {name: value for name, value in os.environ.items() if name.startswith(CARRIED) and not name.endswith("_KEY")}
    paths = [str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return carried | {"PYTHONPATH": os.pathsep.join(paths)}


@contextlib.contextmanager
def cluster() -> Iterator[Any]:
    """The Ray cluster at RAY_ADDRESS, else one that runs on this machine, else one that this process starts.

    Raises ParamError where Ray is not installed or no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # For a cluster that starts here. Ray gives its workers, which do the work, a low priority: on busy cores they would get
    # 1 % of a core, and Ray would drop those that have not started within a minute.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_worker_register_timeout_seconds", "600")
    try:
        import ray
    except ImportError:
        raise ParamError(
            "QTHINK_EXECUTOR is ray but Ray is not installed: `pip install --constraint constraints.txt --editable '.[ray]'`"
        ) from None
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    address = os.environ.get("RAY_ADDRESS", "auto")
    try:
        check_listening(address)
        ray.init(runtime_env={"env_vars": environment()}, include_dashboard=False, logging_level=logging.WARNING)
    except (ConnectionError, TimeoutError) as error:
        raise ParamError(f"no Ray cluster answers at RAY_ADDRESS, {address} ({error}): start it, or unset it") from None
    # Ray sets its own handlers, which would end a stopped stage without a message
    for number, handler in handlers.items():
        signal.signal(number, handler)
    try:
        yield ray
    finally:
        ray.shutdown()


def check_listening(address: str) -> None:
    """Raises ConnectionError at once where nothing listens at `host:port`; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
        except OSError as error:  # also where a name or route is not found, which is not a ConnectionError
            raise ConnectionError(error.strerror or str(error)) from None
