"""The client of the warm server: one process that has imported the packages of all stages and forks for each stage.

A stage of the tiny scale computes for seconds, and its imports of torch, transformers and PEFT take five more. `qthink run`
starts a server that imports them once (warm_server.py). `python -m stages.X` then finds the server by QTHINK_WARM, sends it
its arguments, environment and descriptors, and waits. A fork of the server becomes that stage, and this process ends with
the exit code of the fork. The fork imports our own modules again, so an edit takes effect at once. The server is only for
stages that run on processors and in one process. Any other stage starts cold, and so does a stage whose parameters ask for
threads or kernels that differ from those of the server.

No process outlives the one that started it: the server kills a fork whose client has ended, and the kernel kills the forks
with the server, and the server with the runner. No result depends on this module, so it is not a dep of the stages: `stages`
imports it by name.
"""

import array
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from qthink_core.errors import StoppedError
from qthink_core.pipeline import process

PLACE = "QTHINK_WARM"  # the path of the server's socket
# Variables of stages that start several processes, which cannot use one fork.
SEVERAL = {"QTHINK_LAUNCH", "QTHINK_EXECUTOR", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"}
LENGTH = struct.Struct("!I")
STARTED = b"s"


class Request(NamedTuple):
    """The start of a stage: its module, arguments, environment and folder; `prefix` is that of its Python environment."""

    module: str
    argv: list[str]
    orig_argv: list[str]
    path: list[str]
    prefix: str
    cwd: str
    umask: int
    environ: dict[str, str]


def hand_over() -> None:
    """Runs this `python -m stages.X` in the warm server and ends with its exit code; returns if it must start cold."""
    place = os.environ.get(PLACE)
    if not place or sys.platform != "linux" or sys.argv[:1] != ["-m"] or SEVERAL & os.environ.keys():
        return
    with contextlib.suppress(StoppedError, OSError), socket.socket(socket.AF_UNIX) as connection:
        process.die_with_parent()
        with short_name(Path(place)) as name:
            connection.connect(name)
        with _signals_to(connection) as held:
            _send(connection, _request())
            started = connection.recv(1) == STARTED
            text = b"".join(iter(lambda: connection.recv(64), b"")) if started else b""
        if not started:
            for number in held:
                os.kill(os.getpid(), number)
            return
        if not text:
            box = os.environ.get("DVC_STAGE", "qthink")
            print(f"{box}: the warm server, which ran this stage, has ended: run `dvc repro` again", file=sys.stderr)
            sys.exit(StoppedError.exit_code)
        _end(int(text))


@contextlib.contextmanager
def _signals_to(connection: socket.socket) -> Iterator[list[int]]:
    """Forwards the signals that would stop this process; yields a list that collects their numbers."""
    came: list[int] = []

    def send(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        with contextlib.suppress(OSError):
            connection.send(bytes([number]))

    before = [(number, signal.signal(number, send)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield came
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _end(status: int) -> None:
    """Ends as the fork did, by its exit code or its signal; returns if the fork found that the stage must start cold."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    if code != process.COLD:
        sys.exit(code)


def _request() -> Request:
    module = sys.orig_argv[sys.orig_argv.index("-m") + 1]
    umask = os.umask(0o077)
    os.umask(umask)
    return Request(module, sys.argv[1:], sys.orig_argv, sys.path, sys.prefix, os.getcwd(), umask, dict(os.environ))


def _send(connection: socket.socket, request: Request) -> None:
    text = json.dumps(request._asdict()).encode()  # ASCII, so that bytes that are not UTF-8 survive as surrogates
    descriptors = array.array("i", [0, 1, 2])
    connection.sendmsg([LENGTH.pack(len(text))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    connection.sendall(text)


@contextlib.contextmanager
def short_name(place: Path) -> Iterator[str]:
    """A name for the socket at `place`: the kernel takes 107 bytes of a path, and TMPDIR may be longer."""
    folder = os.open(place.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{place.name}"
    finally:
        os.close(folder)


@contextlib.contextmanager
def server(threads: int, kernels: str) -> Iterator[Path]:
    """The socket of a server whose forks compute on a number of threads with these kernels; it ends with the context.

    Clients may connect at once; they wait until the packages are imported. Call it from the main thread, because the kernel
    ends the server with the thread that started it.
    """
    with tempfile.TemporaryDirectory(prefix="qthink-") as folder:  # readable by this user only
        place = Path(folder, "warm")
        with socket.socket(socket.AF_UNIX) as listener:
            with short_name(place) as name:
                listener.bind(name)
            listener.listen(64)
            command = [
                sys.executable,
                "-m",
                "qthink_core.running.warm_server",
                str(listener.fileno()),
                str(threads),
                kernels,
            ]
            running = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                env=os.environ | {"QTHINK_PARENT": str(os.getpid())},
                start_new_session=True,  # Ctrl-C must reach only the clients, which pass it on
            )
        try:
            yield place
        finally:
            running.kill()
            running.wait()
