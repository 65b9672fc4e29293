"""The warm server (warm.py is its client): imports the packages of all stages, and becomes a stage in each fork.

`python -m qthink_core.running.warm_server <descriptor of a listening socket> <threads> <kernels>`
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import time
from typing import Any

from qthink_core.errors import StoppedError
from qthink_core.pipeline import process
from qthink_core.running.warm import LENGTH, PLACE, STARTED, Request

OURS = {"stages", "qthink_core"}
# The slow imports of the stages. pyarrow imports the dataset module and pandas when it first reads and makes a table.
PACKAGES = (
    "numpy",
    "pydantic",
    "pydantic.main",
    "ruamel.yaml",
    "tqdm",
    "jaxtyping",
    "torch",
    "safetensors.torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen3.modeling_qwen3",
    "transformers.cache_utils",
    "accelerate",
    "peft",
    "scipy.stats",
    "pyarrow.dataset",
    "pyarrow.pandas_compat",
    "pandas",
    "matplotlib.figure",
    "matplotlib.backends.backend_svg",
)
# Without this the allocator of pyarrow starts a thread, which a fork would not have.
NO_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
# Seconds in which a client must send its request.
PATIENCE_S = 10.0


def main() -> None:
    """Imports the packages, then forks until it is killed; in a fork it returns when the stage has ended."""
    descriptor, threads, kernels = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    process.die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        sys.exit(f"qthink: this kernel or container refuses pidfd_open ({error.strerror}): stages start cold")
    process.pin_numerics(threads, kernels)
    os.environ |= NO_THREAD
    gc.disable()  # all that imports make stays, so the collector would look through it in vain
    for name in PACKAGES:
        importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("qthink: an import started a thread, so no process can be forked here: stages start cold")
    gc.collect()
    gc.freeze()  # the collector then does not touch imported objects, so that forks share their memory pages
    gc.enable()
    request = _Server(socket.socket(fileno=descriptor)).next_fork()
    os.environ[process.PINNED] = f"{threads} {kernels} cpu"
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)


class _Server:
    """The server's loop, with the running forks by the connection of their client."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        self.forks: dict[socket.socket, tuple[int, int]] = {}  # process id and its descriptor

    def next_fork(self) -> Request:
        """Serves without end; returns only in a fork, which then has the arguments and environment of its request."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.listener:
                    request = self._accept()
                    if request is not None:
                        return request
                elif key.data is None:
                    self._receive_signal(key.fileobj)
                else:
                    self._ended(key.data)

    def _accept(self) -> Request | None:
        """A fork for one client; returns a request only in the fork."""
        client, _ = self.listener.accept()
        descriptors: list[int] = []
        try:
            client.settimeout(PATIENCE_S)
            request, descriptors = _receive(client)
            if request.prefix != sys.prefix or not request.module.startswith("stages."):
                raise ValueError(request.module)
            parent, pid = os.getpid(), os.fork()
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
        ):  # the client sees that the connection has ended, and starts cold
            for one in descriptors:
                os.close(one)
            client.close()
            return None
        if pid == 0:
            self._close(client)
            _become(request, descriptors, parent)
            return request
        for one in descriptors:
            os.close(one)
        client.settimeout(None)
        self.forks[client] = pid, os.pidfd_open(pid)
        self.selector.register(client, selectors.EVENT_READ)
        self.selector.register(self.forks[client][1], selectors.EVENT_READ, client)
        with contextlib.suppress(OSError):
            client.send(STARTED)
        return None

    def _close(self, client: socket.socket) -> None:
        """Closes the server's files in a fork, through their objects, which might otherwise close a reused descriptor."""
        self.selector.close()
        self.listener.close()
        client.close()
        for other, (_, descriptor) in self.forks.items():
            other.close()
            os.close(descriptor)

    def _receive_signal(self, client: Any) -> None:
        """Forwards a signal from the client to the fork, and kills the fork when the client has ended."""
        if client not in self.forks:  # its fork has just ended
            return
        try:
            message = client.recv(1)
        except OSError:
            message = b""
        os.kill(self.forks[client][0], message[0] if message else signal.SIGKILL)
        if not message:
            self.selector.unregister(client)

    def _ended(self, client: socket.socket) -> None:
        pid, descriptor = self.forks.pop(client)
        _, status = os.waitpid(pid, 0)
        self.selector.unregister(descriptor)
        os.close(descriptor)
        with contextlib.suppress(KeyError):
            self.selector.unregister(client)
        with contextlib.suppress(OSError):
            client.send(str(status).encode())
        client.close()


def _receive(client: socket.socket) -> tuple[Request, list[int]]:
    head, descriptors, _, _ = socket.recv_fds(client, LENGTH.size, 3)
    try:
        if len(head) != LENGTH.size or len(descriptors) != 3:
            raise ValueError(head)
        text = bytearray()
        while len(text) < LENGTH.unpack(head)[0]:
            part = client.recv(1 << 16)
            if not part:
                raise ValueError("the client has gone")
            text += part
        return Request(**json.loads(text)), descriptors
    except BaseException:
        for one in descriptors:
            os.close(one)
        raise


def _become(request: Request, descriptors: list[int], parent: int) -> None:
    """Takes on the environment and descriptors of a request, as if Python had been started with them."""
    environ = {name: value for name, value in request.environ.items() if name != PLACE} | {"QTHINK_PARENT": str(parent)}
    os.environ.clear()
    os.environ.update(environ)
    try:
        process.die_with_parent()
    except StoppedError:
        os._exit(StoppedError.exit_code)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    _python_as_started(request)


def _python_as_started(request: Request) -> None:
    os.chdir(request.cwd)
    os.umask(request.umask)
    time.tzset()
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    sys.argv, sys.orig_argv, sys.path[:] = [request.module, *request.argv], request.orig_argv, request.path
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    importlib.invalidate_caches()
    sys.modules["numpy"].random.seed()  # otherwise all forks would draw the same numbers; `random` seeds itself again
    sys.modules["torch"].default_generator.seed()


if __name__ == "__main__":
    main()
