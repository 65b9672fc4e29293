"""Grades answers.jsonl in a watched process: a JSON line for each with verdict, cost, and what it asked of the machine.

A program: `grading.py [all]`, otherwise without what would take long. Its last line has what is left behind or changed.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from hostile.answers import GOLDS, asked

from qthink_core.benchmarks.graders import grade, latex_equality

# What text may not make a grader do, as beginnings of the names of Python's audit events.
FORBIDDEN = "open socket. subprocess. os. exec compile import pickle. marshal. ctypes. shutil. tempfile. code."


def settings() -> list[Any]:
    """Handlers and limits of this process, which a library may change to end a computation."""
    handled = (signal.SIGALRM, signal.SIGPROF, signal.SIGINT)
    return [*map(signal.getsignal, handled), resource.getrlimit(resource.RLIMIT_AS), signal.getitimer(signal.ITIMER_REAL)]


def main(everything: bool) -> None:
    seen: list[str] = []
    armed = False

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if armed and event.startswith(tuple(FORBIDDEN.split())):
            seen.append(ascii((event, *arguments))[:300])

    sys.addaudithook(note)
    for benchmark, gold in GOLDS.items():  # starts the worker
        grade(benchmark, gold, r"\boxed{\sqrt{117}}")
    worker = Path(f"/proc/{latex_equality.process_id()}/stat")

    def spent_s() -> float:
        """Processor time of this process, of the worker, and of the children that the worker has had."""
        fields = worker.read_text().rpartition(")")[2].split()
        return time.process_time() + sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    left_alone = settings()
    for row in asked(everything):
        answer, before = row.answer, spent_s()
        armed = True
        verdict = grade(row.benchmark, row.gold, answer).verdict
        armed = False
        print(json.dumps({"verdict": verdict, "seen": seen, "cpu_s": spent_s() - before}))
        seen.clear()
    latex_equality.close()
    print(json.dumps([*os.listdir(), *(["a signal or limit"] if settings() != left_alone else [])]))


if __name__ == "__main__":
    main("all" in sys.argv)
