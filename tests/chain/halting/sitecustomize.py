"""Halts a stage as it is about to record its n-th unit, where HALT is `<stage>:<n> ...`: what a test does then cannot race.

Python imports this module at its start when its folder is in PYTHONPATH. The environment is read late: a fork of the warm
server gets its own after the start.
"""

import gc
import os
import signal
import sys
import time

recorded = 0


def halt(event: str, arguments: tuple) -> None:
    """Counts the renames that make a unit's record; the n-th one waits for SIGCONT."""
    global recorded
    if event == "os.rename" and str(arguments[1]).endswith(".unit.json"):
        recorded += 1
        counts = dict(word.split(":") for word in os.environ.get("HALT", "").split())
        if recorded == int(counts.get(os.environ.get("DVC_STAGE", "").partition("@")[0], 0)):
            os.kill(os.getpid(), signal.SIGSTOP)
            # The kernel may hand the next signal to another thread: this one must see it before it renames.
            time.sleep(0.5)


sys.addaudithook(halt)
# as in quick_start/sitecustomize.py
gc.set_threshold(1_000_000)
os.fsync = lambda handle: None
