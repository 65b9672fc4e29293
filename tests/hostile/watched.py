"""Runs a program under the watch of watch/sitecustomize.py, and returns what its processes asked of the machine."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent


def run(
    command: Sequence[str], cwd: Path, pipe: Path, events: str, children: bool = False, **environment: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The ended command, and a line for each event whose name begins with one of `events`.

    A pipe, because processes that may write to no file have to report, too. With `children`, forked processes alone count.
    """
    os.mkfifo(pipe)
    reading, lines = os.open(pipe, os.O_RDWR), list[str]()

    def collect() -> None:
        with os.fdopen(os.dup(reading), "r", encoding="ascii") as file:
            for line in iter(file.readline, "end\n"):
                lines.append(line.rstrip())

    reader = threading.Thread(target=collect)
    reader.start()
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=watched(pipe, events, children, os.environ | environment),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.write(reading, b"end\n")
        reader.join()
        os.close(reading)
    return done, lines


def watched(to: Path, events: str, children: bool, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which Python programs report events to a file or pipe."""
    path = os.pathsep.join(filter(None, [str(HERE / "watch"), environment.get("PYTHONPATH", "")]))
    mode = {"QTHINK_WATCH_CHILDREN": "1"} if children else {}
    return {**environment, "PYTHONPATH": path, "QTHINK_WATCH": str(to), "QTHINK_WATCHED": events} | mode


def python(program: Path, *arguments: str) -> list[str]:
    """The command that runs a program with this interpreter."""
    return [sys.executable, str(program), *arguments]
