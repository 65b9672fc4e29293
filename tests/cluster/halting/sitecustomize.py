"""Halts a worker in the middle of its second or third unit; HALT names the file that is then to hold its process id.

Python imports this module at its start when its folder is in PYTHONPATH; HALT is in the environment of one node alone.
"""

import os
import signal
import sys
from pathlib import Path

left = 3


def halt(event: str, arguments: tuple) -> None:
    """Counts the folders that files of units are written into."""
    global left
    if event == "tempfile.mkdtemp":
        left -= 1
        if left == 0:
            Path(os.environ["HALT"]).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)


if "HALT" in os.environ:
    sys.addaudithook(halt)
