"""Halts a worker in the middle of its second or third unit: for good where HALT names the file that is then to hold its
process id, until that file is there where WAIT names it.

Python imports this module at its start when its folder is in PYTHONPATH; HALT and WAIT are in one node's environment each.
"""

import os
import signal
import sys
import time
from pathlib import Path

left = 3


def halt(event: str, arguments: tuple) -> None:
    """Counts the folders that files of units are written into."""
    global left
    if event == "tempfile.mkdtemp":
        left -= 1
        if left == 0 and "HALT" in os.environ:
            made = Path(os.environ["HALT"] + ".new")
            made.write_text(str(os.getpid()))
            made.rename(os.environ["HALT"])  # so that it is never seen without the number
            os.kill(os.getpid(), signal.SIGSTOP)
        while left == 0 and "WAIT" in os.environ and not Path(os.environ["WAIT"]).exists():
            time.sleep(0.01)


if os.environ.keys() & {"HALT", "WAIT"}:
    sys.addaudithook(halt)
