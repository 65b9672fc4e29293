"""`qthink` in a fork of the test process, which has loaded torch: a process without seconds of imports."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path


def qthink(
    *words: str, given: bytes = b"", cwd: Path | None = None, variables: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Runs the program in a fork with `given` as standard input, and returns its exit code and what it wrote."""
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        source.write(given)
        source.seek(0)
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _run(words, [source.fileno(), out.fileno(), err.fileno()], cwd, variables or {})
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(["qthink", *words], os.waitstatus_to_exitcode(status), out.read(), err.read())


def _run(words: tuple[str, ...], files: list[int], cwd: Path | None, variables: Mapping[str, str]) -> None:
    code = 70
    try:
        for at, file in enumerate(files):
            os.dup2(file, at)
        # pytest has put objects of its own in their places
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(at, mode) for at, mode in enumerate("rww"))
        os.environ |= variables
        if cwd is not None:
            os.chdir(cwd)
        from qthink_core.cli.__main__ import app

        app(list(words))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the traceback is what the test will show
        import traceback

        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
