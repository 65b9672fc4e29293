"""Ray workers: units are dealt to the actors of a cluster, and one that is lost costs the unit in its hands.

An actor makes files and sends their bytes; only the process that deals commits them. An actor computes under the same
environment and in the same folder, and so makes the same bytes on a CPU, as the process that deals would.
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

# What decides the bits of a result (process.pin_numerics) and what engines read, by the beginnings of its names.
CARRIED = ("OMP_", "MKL_", "OPENBLAS_", "ATEN_", "ONEDNN_", "TOKENIZERS_", "CUBLAS_", "TORCH_", "VLLM_")
# A unit that ends its worker's process this often, on nodes that live on, is itself the cause.
DEATHS = 3
PATIENCE_S, KNOCK_S = 30.0, 5.0


class Worker:
    """What an actor does: it takes the folder of the process that deals, and makes units with one loaded model."""

    def __init__(self, maker: Any) -> None:
        self.maker = maker
        self.make: Any = None
        self.held = contextlib.ExitStack()

    def start(self, folder: Path, work: Path) -> str:
        """The id of the node; from now on the actor works in `folder`.

        Raises DataError where `work` is not seen from the node.
        """
        import ray

        node = ray.get_runtime_context().get_node_id()
        if not work.is_dir():
            raise DataError(
                f"worker on node {called(node)} does not see {work}: put the project on a file system that all nodes share"
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
class Hand:
    """An actor that was asked for; it has a node once it has started, and a unit while it makes one."""

    actor: Any
    node: str = ""
    unit: str = ""


def contents(write: Writer | bytes) -> bytes:
    """The bytes that a file of a unit is to hold."""
    if isinstance(write, bytes):
        return write
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        write(path)
        return path.read_bytes()


def made(maker: Any, units: Mapping[str, Any], work: Path, device: str) -> Iterator[tuple[str, Made]]:
    """Each unit with what it is made into, as the workers finish.

    A worker that dies is named on stderr, another takes its place as soon as the cluster has room, and its unit is dealt
    again. Raises what `maker` or a unit raises, and QThinkError for a unit that has ended its worker's process three times.
    """
    limit, threads = workers_asked(), int(os.environ.get("OMP_NUM_THREADS", "1"))
    box, deaths, waits = work.resolve().parent.name, list[Hand](), False
    with cluster() as ray:
        actor = ray.remote(Worker).options(
            num_cpus=1 if device == "cuda" else threads,
            num_gpus=1 if device == "cuda" else 0,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        todo, idle, calls = deque(units), list[Hand](), dict[Any, Hand]()
        while todo or any(hand.unit for hand in calls.values()):
            while todo and idle:
                hand = idle.pop()
                hand.unit = todo.popleft()
                calls[hand.actor.unit.remote(hand.unit, units[hand.unit])] = hand
            for _ in range(min(len(todo), wanted(ray, device, threads, limit) - len(calls) - len(idle))):
                hand = Hand(actor.remote(maker))
                calls[hand.actor.start.remote(Path.cwd(), work.resolve())] = hand
            done, _ = ray.wait(list(calls), timeout=PATIENCE_S)
            if not done and not waits and not any(hand.node for hand in calls.values()):
                say(
                    box,
                    f"Ray has no room for a worker yet: waiting for {'a GPU' if device == 'cuda' else f'{threads} CPUs'}",
                )
                waits = True
            for ref in done:
                hand = calls.pop(ref)
                result = fetched(ray, ref)
                if isinstance(result, Exception):
                    deaths.append(hand)
                    say(box, obituary(ray, deaths, result))
                    if hand.unit:
                        todo.appendleft(hand.unit)
                    continue
                if hand.unit:
                    yield hand.unit, result
                    hand.unit = ""
                else:
                    hand.node = result
                    deaths = [one for one in deaths if one.unit]
                idle.append(hand)


def fetched(ray: Any, ref: Any) -> Any:
    """The result of a call, or the error that says that its worker is lost; raises what the call itself raised."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, QThinkError) else error) from None
    except ray.exceptions.RayError as error:
        # killed for memory, with its node, before it started, or its result was lost on the way
        return error


def wanted(ray: Any, device: str, threads: int, limit: int | None) -> int:
    """How many workers the cluster as it is now is to have: one a GPU, or one for as many CPUs as a worker has threads."""
    found = ray.cluster_resources()
    room = int(found.get("GPU", 0)) if device == "cuda" else int(found.get("CPU", 0)) // threads
    if limit is not None:
        room = min(room, limit) if device == "cuda" else limit
    # At least one, so that a cluster that grows on demand, or whose nodes were all taken away, is asked for room.
    return max(room, 1)


def workers_asked() -> int | None:
    """The number of workers that QTHINK_RAY_ACTORS names: all on CPUs, at most so many on GPUs."""
    text = os.environ.get("QTHINK_RAY_ACTORS")
    if text is not None and (not text.isdecimal() or int(text) < 1):
        raise ParamError(f"QTHINK_RAY_ACTORS is {text!r}: give a whole number of workers, at least 1")
    return None if text is None else int(text)


def obituary(ray: Any, deaths: Sequence[Hand], error: Exception) -> str:
    """Who died last, where and over what; raises QThinkError when that was `DEATHS` times the cause.

    The loss of a node is not a unit's fault. Ray learns of it half a minute after the worker's silence, so the count is made
    anew at every death.
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
    where = f"worker on node {called(last.node)}" if last.node else "a worker"
    what = f"it made {last.unit}" if last.unit else "it started"
    if sum(one.unit == last.unit and one.node not in lost for one in deaths) >= DEATHS:
        raise QThinkError(
            f"{where} died while {what} ({why}), the {DEATHS}rd death over it: give a worker more memory and run the same "
            "command again, which keeps finished units, or make units smaller, with which the box begins anew"
        )
    return f"{where} died while {what}: {'dealt again' if last.unit else 'another is asked for'} ({why})"


def called(node: str) -> str:
    """A node as its operator knows it: the name or address that it was started with, and the beginning of its id."""
    import ray

    names = {one["NodeID"]: one["NodeName"] for one in ray.nodes()}
    return f"{names.get(node, 'unknown')} ({node[:8]})"


def say(box: str, text: str) -> None:
    """One line on stderr, behind the name of the stage's box."""
    print(f"{box}: {text}", file=sys.stderr, flush=True)


def environment() -> dict[str, str]:
    """What the actors' environment has in common with this process's: what decides bits, and where modules come from."""
    carried = {name: value for name, value in os.environ.items() if name.startswith(CARRIED) and not name.endswith("_KEY")}
    paths = [str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return carried | {"PYTHONPATH": os.pathsep.join(paths)}


@contextlib.contextmanager
def cluster() -> Iterator[Any]:
    """The Ray cluster at RAY_ADDRESS, else one that runs on this machine, else one of this process alone.

    Raises ParamError where Ray is not installed or no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Of a cluster that starts here: where others use the cores as well, Ray would leave its workers, who do the work, 1 % of
    # one, and give them up when they have not started within a minute.
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
        knock(address)
        ray.init(runtime_env={"env_vars": environment()}, include_dashboard=False, logging_level=logging.WARNING)
    except (ConnectionError, TimeoutError) as error:
        raise ParamError(f"no Ray cluster answers at RAY_ADDRESS, {address} ({error}): start it, or unset it") from None
    # Ray sets handlers of its own, which would end a stopped stage without a word.
    for number, handler in handlers.items():
        signal.signal(number, handler)
    try:
        yield ray
    finally:
        ray.shutdown()


def knock(address: str) -> None:
    """Raises ConnectionError at once where nothing listens at `host:port`: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=KNOCK_S).close()
        except OSError as error:  # also a name or a way that is not found, which no ConnectionError says
            raise ConnectionError(error.strerror or str(error)) from None
