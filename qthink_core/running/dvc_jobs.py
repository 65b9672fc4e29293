"""DVC in forks of this process: a list of the boxes that have changed, and a job for each box that is made.

`dvc repro --single-item <box>` takes 0.6 s of processor time in addition to the box's own work, 0.4 s of which start Python
and import DVC. A process that imports DVC once and forks for each box saves those 0.4 s. Each fork is its own process group
and dies with the process that started it.
"""

import contextlib
import importlib
import json
import logging
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from qthink_core.artifacts.files import write_file
from qthink_core.errors import DataError, StoppedError
from qthink_core.pipeline import process

# The modules that DVC needs to make a box, imported once so that no fork has to.
MODULES = (
    "dvc.cachemgr",
    "dvc.data_cloud",
    "dvc.dvcfile",
    "dvc.lock",
    "dvc.output",
    "dvc.repo.index",
    "dvc.repo.metrics",
    "dvc.repo.params",
    "dvc.repo.plots",
    "dvc.repo.reproduce",
    "dvc.repo.stage",
    "dvc.repo.status",
    "dvc.rwlock",
    "dvc.scm",
    "dvc.stage.cache",
    "dvc.stage.run",
    "dvc.utils.strictyaml",
    "dvc_data.hashfile.status",
)
LOCK = "dvc.lock"
BOXES, OUTPUTS = re.compile(rb"^(?=  [^\s:]+:$)", re.MULTILINE), b"\n    outs:\n"
BUSY = "is busy"
STOPS = {signal.SIGINT, signal.SIGTERM}
STATUS = re.compile(r"exited with (-?\d+)$")


class Job(NamedTuple):
    """A box that DVC makes: the fork, the descriptor from which its output is read, and when it began."""

    pid: int
    output: int
    began: float

    def stop(self, number: signal.Signals) -> None:
        """Signals the fork and the stage under it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def load() -> None:
    """Imports the modules that the forks need."""
    for name in MODULES:
        importlib.import_module(name)


def changed() -> set[str]:
    """The boxes that DVC would make because their inputs or outputs have changed.

    Deletes DVC's list of running commands where a kill has torn it, and says so. Raises StoppedError with its message while
    another run is at work, DataError with it otherwise, and with the fix where dvc.lock is torn.
    """
    with tempfile.TemporaryFile() as file:

        def write() -> int:
            from dvc.repo import Repo

            with Repo(_wait_for_lock=True) as repo:
                remove_torn_list(repo)
                file.write(json.dumps(list(repo.status())).encode())
                file.flush()
            return 0

        with _fork(write) as job:
            output = b"".join(iter(lambda: os.read(job.output, 1 << 16), b""))
            _, status = os.waitpid(job.pid, 0)
        said = output.decode(errors="replace").strip()
        if status and "dvc.lock'" in said:
            again = "run `git checkout dvc.lock` (or `rm dvc.lock`) and the same command again; what was made is kept"
            raise DataError(f"dvc.lock is damaged, perhaps because DVC was killed as it wrote it ({said}): {again}")
        if status and BUSY in said:
            raise StoppedError(f"another run of DVC is at work: {said}")
        if status:
            raise DataError(said or "dvc status failed: run it")
        if said:
            print(said, flush=True)
        file.seek(0)
        return set(json.loads(file.read()))


def sort_lock(root: Path, order: Sequence[str]) -> None:
    """Puts the boxes in dvc.lock into this order, and others after them; raises DataError with DVC's message.

    DVC appends each box when it ends, so the order of boxes that ran side by side would change from run to run.
    """

    def write() -> int:
        from dvc.repo import Repo

        with Repo(_wait_for_lock=True) as repo, repo.lock:
            before = (root / LOCK).read_bytes()
            if (after := in_order(before, order)) != before:
                write_file(root / LOCK, after)
        return 0

    with _fork(write) as job:
        output = b"".join(iter(lambda: os.read(job.output, 1 << 16), b""))
        _, status = os.waitpid(job.pid, 0)
    if status:
        raise DataError(output.decode(errors="replace").strip() or f"{LOCK} could not be put in order")


def in_order(lock: bytes, order: Sequence[str]) -> bytes:
    """A dvc.lock with its boxes in this order, and others after them as they were."""
    head, *blocks = BOXES.split(lock)
    place = {f"  {box}:".encode(): number for number, box in enumerate(order)}
    return head + b"".join(sorted(blocks, key=lambda block: place.get(bytes(block).partition(b"\n")[0], len(place))))


def outputs(lock: bytes) -> dict[bytes, bytes]:
    """What a dvc.lock says of the outputs of each box, as DVC writes it behind everything else."""
    _, *blocks = BOXES.split(lock)
    return {block.partition(b":")[0].strip(): block.partition(OUTPUTS)[2] for block in blocks}


def remove_torn_list(repo: Any) -> None:
    """Deletes the file in which DVC lists its running commands if it is torn, because DVC would refuse to run.

    DVC writes it in place, several times per box. While its lock is held, no other command is writing it.
    """
    from dvc.lock import LockError, make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    path = os.path.join(repo.tmp_dir, RWLOCK_FILE)
    hardlink = repo.config["core"].get("hardlink_lock", False)
    with (
        contextlib.suppress(FileNotFoundError, LockError),
        make_lock(os.path.join(repo.tmp_dir, RWLOCK_LOCK), tmp_dir=repo.tmp_dir, hardlink_lock=hardlink),
        open(path, "rb") as file,
    ):
        try:
            json.loads(file.read())
        except ValueError:
            os.unlink(path)
            print(f"removed {os.path.relpath(path)}, which DVC was killed while it wrote")


def start(box: str, force: bool) -> Job:
    """A job that makes one box if it has changed; its exit code is that of the stage, or 1 if DVC itself refuses."""

    def reproduce() -> int:
        from dvc.repo import Repo

        with Repo(_wait_for_lock=True) as repo:
            repo.reproduce([box], single_item=True, force=force)
        return 0

    return _start(reproduce)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Blocks the signals that stop this process until the context ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _fork(work: Callable[[], int]) -> Iterator[Job]:
    job = _start(work)
    try:
        yield job
    except BaseException:
        job.stop(signal.SIGKILL)
        raise
    finally:
        os.close(job.output)


def _start(work: Callable[[], int]) -> Job:
    """A fork whose exit code is what `work` returns."""
    read, write = os.pipe()
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    with held():  # otherwise the fork could get a signal before it has its own handlers
        pid = os.fork()
        if not pid:
            _run(work, parent, read, write)
        # set in both processes, so that the group exists before a signal is sent to it, whichever runs first
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
    os.close(write)
    return Job(pid, read, time.monotonic())


def _run(work: Callable[[], int], parent: int, read: int, write: int) -> NoReturn:
    """Runs the fork: its output goes into the pipe, and its exit code is what `work` returns."""
    from dvc.exceptions import DvcException

    code = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        os.environ["QTHINK_PARENT"] = str(parent)
        process.die_with_parent()
        del os.environ["QTHINK_PARENT"]
        empty = os.open(os.devnull, os.O_RDONLY)
        for number, descriptor in enumerate((empty, write, write)):
            os.dup2(descriptor, number)
        os.close(read)
        logging.getLogger("dvc").setLevel(logging.ERROR)
        code = work()
    except KeyboardInterrupt:
        code = StoppedError.exit_code
    except (DvcException, OSError) as error:
        code = _exit_code(error)
    finally:
        if sys.exc_info()[0]:
            traceback.print_exc()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _exit_code(error: Exception) -> int:
    """The exit code of the stage that failed; else 1, after one line that says why DVC refused."""
    words = []
    cause: BaseException | None = error
    while cause is not None:
        words.append(" ".join(str(cause).split()))
        cause = cause.__cause__ or cause.__context__
    found = [int(code[1]) for code in map(STATUS.search, words) if code]
    if found:
        return found[0] if found[0] >= 0 else 128 - found[0]
    print(": ".join(words), file=sys.stderr)
    return 1
