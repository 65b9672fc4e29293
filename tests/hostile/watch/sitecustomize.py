"""Python reads this file at its start where its folder is on PYTHONPATH: it writes down what a process asks of its machine.

QTHINK_WATCH is a file or a pipe, to which each event goes as a line, and QTHINK_WATCHED the events, as beginnings of names.
With QTHINK_WATCH_CHILDREN, only what a forked child does counts: a grader's worker forks one for each question.
"""

import os
import sys
from typing import Any

watched = tuple(os.environ.get("QTHINK_WATCHED", "").split())
path = os.environ.get("QTHINK_WATCH")
armed = "QTHINK_WATCH_CHILDREN" not in os.environ
written_to = os.open(path, os.O_WRONLY | os.O_APPEND) if path and watched else -1


def note(event: str, arguments: tuple[Any, ...]) -> None:
    if armed and event.startswith(watched):
        os.write(written_to, ascii((event, *arguments))[:200].encode() + b"\n")


def arm() -> None:
    global armed
    armed = True


if written_to >= 0:
    os.register_at_fork(after_in_child=arm)
    sys.addaudithook(note)
