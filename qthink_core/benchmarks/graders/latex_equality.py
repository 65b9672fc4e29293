"""Whether two LaTeX expressions are equal, decided by Math-Verify in another process.

Math-Verify's own time-out uses SIGALRM: it raises outside the main thread, cancels other alarms, and does not stop a
factorial inside GMP. Here the parent sets no signal and imports no computer algebra; `latex_worker` sets the
limits. docs/decisions/engineering.md explains in section "Libraries" why no library's process pool is used.
"""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from qthink_core.benchmarks.graders.contract import Verdict
from qthink_core.errors import StoppedError

_WORKER = Path(__file__).with_name("latex_worker.py")
# The slowest published gold takes 0.2 s; with the start of the worker (0.8 s) every answer costs less than 2.5 s.
CPU_LIMIT_S = 1.2
# SymPy's order depends on the hash seed. With gmpy2 or python-flint, where they are installed, an answer near the limit of
# time would get another verdict: whole numbers are Python's own.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "SYMPY_GROUND_TYPES": "python", "MPMATH_NOGMPY": "1"}
_VERDICTS: tuple[Verdict, ...] = ("right", "wrong", "timeout", "over_limit")
# Whether two values are equal, or the pairs of expressions, gold first, that all have to be equal for it.
Cell = bool | list[tuple[str, str]]


class _Worker:
    """The only worker process of this process, started for the first question."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, table: list[list[Cell]]) -> Verdict:
        # JSON escapes every character beyond ASCII, lone surrogates too, and every line break.
        question = json.dumps(table) + "\n"
        with self._lock:
            for _ in range(2):  # again if the idle worker was killed from outside
                reply = self._exchange(question)
                for verdict in _VERDICTS:
                    if reply == f"{verdict}\n":
                        return verdict
                self._stop()
        raise StoppedError(
            f"the process that compares LaTeX answered {reply!r:.60} twice, expected a verdict: "
            "check that math-verify is installed and memory is free, then run the same command again"
        )

    def start(self) -> None:
        if self._process is None:
            # -P, because modules in the same folder must not shadow installed ones. A separate process group, because Ctrl-C
            # is for this process, which may still need a verdict.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_WORKER), str(CPU_LIMIT_S)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | _ENVIRONMENT,
                process_group=0,
            )

    def _exchange(self, question: str) -> str:
        self.start()
        assert self._process
        assert self._process.stdin
        assert self._process.stdout
        whole = False
        try:
            self._process.stdin.write(question)
            self._process.stdin.flush()
            reply = self._process.stdout.readline()
            whole = True
        except BrokenPipeError:
            reply = ""
        finally:
            if not whole:  # after an interruption the next question must not read this reply
                self._stop()
        return reply

    def _stop(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            with contextlib.suppress(BrokenPipeError), process:  # closing its pipe flushes what was not sent
                pass

    def close(self) -> None:
        with self._lock:
            self._stop()

    def process_id(self) -> int | None:
        return self._process.pid if self._process else None


_worker = _Worker()


def compare(table: list[list[Cell]]) -> Verdict:
    """The verdict "right" or "wrong", or the limit of the worker that ended the comparison.

    Right where each row, a value of the gold, is equal to a column of its own, a value of the answer.
    """
    return _worker.ask(table)


def start() -> None:
    """Starts the worker process, so that the first comparison does not wait for its imports."""
    _worker.start()


def close() -> None:
    """Ends the worker process; the next comparison starts a new one."""
    _worker.close()


def process_id() -> int | None:
    """The id of the worker process, or None where it is not running."""
    return _worker.process_id()


def _forget_worker() -> None:
    """Gives a forked child a worker of its own: it must not share its parent's pipes, or a lock that another thread held."""
    global _worker
    _worker = _Worker()


os.register_at_fork(after_in_child=_forget_worker)
atexit.register(close)
