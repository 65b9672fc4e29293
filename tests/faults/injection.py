"""Faults inside a stage: what happens to it at its n-th file operation, injected into its process."""

import errno
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What Python tells an audit hook before it changes a file; a file that a library opens itself is seen when its mode is set.
CHANGES = {"os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
MAKES = os.O_CREAT | os.O_TRUNC
TEMPORARY = ".tmp"
# At its n-th operation in the current folder: (number, name of the operation, path).
Act = Callable[[int, str, str], None]


def watch(act: Act) -> None:
    """Calls `act` before each file operation of this process inside its current folder."""
    root, count = os.getcwd() + os.sep, 0

    def tell(event: str, path: str) -> None:
        nonlocal count
        if path.startswith(root) and "__pycache__" not in path and _changes(event, path):
            count += 1
            act(count, event, path)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & MAKES and isinstance(path, str | os.PathLike):
                tell(event, os.path.abspath(path))
        elif event in CHANGES:
            path, folder = arguments[0], arguments[-1]
            within = os.readlink(f"/proc/self/fd/{folder}") if _relative(event, arguments) else ""
            tell(event, os.path.abspath(os.path.join(within, os.fspath(path))))

    fsync = os.fsync

    def synced(handle: int) -> None:
        tell("fsync", os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    os.fsync = synced
    sys.addaudithook(hook)


def _changes(event: str, path: str) -> bool:
    """Whether the operation can succeed: many folders are made although they may exist, and files deleted that may not."""
    return not os.path.isdir(path) if event == "os.mkdir" else event != "os.remove" or os.path.lexists(path)


def _relative(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether the path is relative to an open folder, as in a deletion of a tree."""
    return event in ("os.remove", "os.rmdir") and isinstance(arguments[-1], int) and arguments[-1] >= 0


def kill_at(operation: int, torn: int) -> Callable[[], None]:
    """Kills the process at an operation; a file that is written at that moment is cut to a part drawn from `torn`."""

    def act(number: int, event: str, path: str) -> None:
        if number == operation:
            if event == "os.chmod" and path.endswith(TEMPORARY):
                os.truncate(path, random.Random(torn).randint(0, os.path.getsize(path)))
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: watch(act)


def signal_at(operation: int, number: int, sent: Path) -> Callable[[], None]:
    """Sends the process a signal at an operation, which it tells in the file `sent`."""

    def act(count: int, event: str, path: str) -> None:
        if count == operation:
            sent.write_text(f"{event} {path}")
            os.kill(os.getpid(), number)

    return lambda: watch(act)


def kill_at_exchange(number: int) -> Callable[[], None]:
    """Kills a rank as it is about to exchange its n-th tensor with the others."""

    def begin() -> None:
        from torch import distributed

        count = 0

        def counted(exchange: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return exchange(*arguments, **named)

            return call

        distributed.all_reduce, distributed.broadcast = counted(distributed.all_reduce), counted(distributed.broadcast)

    return begin


def refuse_from(operation: int, until: Path) -> Callable[[], None]:
    """Refuses every operation that needs room from this one on, as a full disk does; tells `until` which was the first."""

    def act(number: int, event: str, path: str) -> None:
        if number >= operation and event in ("open", "os.mkdir", "os.link", "fsync"):
            if not until.exists():
                until.write_text(f"{event} {path}")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    return lambda: watch(act)


def count_into(file: Path) -> Callable[[], None]:
    """Writes each operation of the process as a line into a file outside its folder."""

    def act(_number: int, event: str, path: str) -> None:
        with file.open("a") as lines:
            lines.write(f"{event} {path}\n")

    return lambda: watch(act)
