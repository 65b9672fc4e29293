"""The process that a stage runs in: its threads and kernels, its parent, its lock, its launcher, its signals."""

import contextlib
import ctypes
import fcntl
import os
import re
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from qthink_core.errors import ParamError, StoppedError, StorageError
from qthink_core.pipeline import ranks

PR_SET_PDEATHSIG = 1
# For a fork of the warm server (running/warm.py): the variable with its pinned numerics, and its exit code if a stage needs
# different ones.
PINNED, COLD = "QTHINK_PINNED", 99
AGAIN_S = 0.1


def pin_numerics(threads: int, kernels: str) -> None:
    """Sets the threads and kernels that decide the bits of a CPU result; call it before torch is imported.

    `avx2` limits ATen, oneDNN and MKL to AVX2, and keeps sums as torch computes them (`products.chosen_for_speed`); `native`
    uses all instructions of the machine, whatever the environment says. With both, MKL's products do not depend on the
    addresses of their operands (docs/decisions/engineering.md, Reproducibility).
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["MKL_DYNAMIC"] = "FALSE"
    os.environ["OMP_DYNAMIC"] = "FALSE"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # without it MKL chooses kernels by the addresses of operands too; AMD processors treat both values as AUTO
    os.environ["MKL_CBWR"] = "AVX2" if kernels == "avx2" else "AUTO"
    for name, limit in (("ATEN_CPU_CAPABILITY", "avx2"), ("ONEDNN_MAX_CPU_ISA", "AVX2")):
        os.environ.pop(name, None)
        if kernels == "avx2":
            os.environ[name] = limit


def cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def only_as_pinned(threads: int, kernels: str, device: str) -> None:
    """Ends a fork of the warm server silently if its stage needs other numerics or a GPU; the stage then starts cold.

    The fork has already imported torch, so its threads and kernels can no longer change.
    """
    pinned = os.environ.pop(PINNED, None)
    if pinned is not None and pinned != f"{threads} {kernels} {device}":
        os._exit(COLD)


def die_with_parent() -> None:
    """Asks the kernel to kill this process when DVC dies; otherwise it would continue to write during the next run.

    The commands in dvc.yaml pass DVC's process id. Raises StoppedError where DVC died before this process could ask.
    """
    parent = int(os.environ.get("QTHINK_PARENT") or os.getppid())
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            raise StoppedError(f"process {parent}, which started this stage, has ended: run `dvc repro` again")


@contextlib.contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Holds the box's lock in the context; raises StoppedError naming the process that holds it already.

    The kernel releases the lock when the process ends, however it ends. Raises StorageError where files cannot be locked.
    docs/decisions/engineering.md explains in section "Libraries" why no library is used.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StoppedError(f"{what} is already running as process {file.read().strip()}: wait until it ends") from None
        except OSError as error:  # Lustre without -o flock, some NFS
            raise StorageError(
                f"{path} cannot be locked ({error.strerror}): mount its file system with flock, or move the repository"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def stop_on_signals() -> None:
    """Makes SIGINT and SIGTERM raise KeyboardInterrupt with their name, also if they come while Python runs a destructor."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _on_signal)
    sys.unraisablehook = _raise_again


def ignore_signals() -> None:
    """Lets a finished process end: while Python ends, it would give back a handler that kills."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _on_signal(number: int, _frame: object) -> NoReturn:
    # not a StoppedError: libraries catch Exception around optional imports, and the stop would be lost
    raise KeyboardInterrupt(signal.Signals(number).name)


def _raise_again(dropped: Any) -> None:
    """Sends the signal once more, a moment later, where Python has dropped the exception that it raised."""
    if not isinstance(dropped.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
        return
    number = getattr(signal, str(dropped.exc_value), signal.SIGINT)
    again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def launch(stage: str) -> None:
    """Becomes the launcher that QTHINK_LAUNCH names, which starts the stage once per rank; does nothing without one.

    The process id stays the same, so the launcher ends with DVC, and the ranks end with the launcher. Raises ParamError when
    QTHINK_LAUNCH does not name a program, or when accelerate has started one process instead of several.
    """
    text = os.environ.pop("QTHINK_LAUNCH", None)
    if ranks.forsaken():
        raise ParamError("accelerate started one process instead of several: add --multi_gpu, without --cpu; CPUs are fine")
    if text is None or ranks.launched():
        return
    try:
        command = shlex.split(text)
    except ValueError:
        command = []
    if not command or not shutil.which(command[0]):
        raise ParamError(
            f"QTHINK_LAUNCH is {text!r}, which is not a program on the path: give `accelerate launch ...`, or unset it"
        )
    if re.search(r"--num[_-]processes[= ](?!1( |$))", text) and "--mpirun_hostfile" not in text:
        # with --cpu accelerate leaves the start to MPI; its other launcher also starts ranks on CPUs, and params name the
        # device
        command = ["--multi_gpu" if word == "--cpu" else word for word in command]
    os.environ.pop("QTHINK_PARENT", None)  # the parent of the ranks is the launcher, a different one on each machine
    os.execvp(command[0], [*command, "-m", f"stages.{stage}"])
