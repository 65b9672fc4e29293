"""Freed memory stays in a process that answers."""

import os
import subprocess
import sys

import pytest

# Page faults of large blocks that are made and freed again, without and with kept memory. At the start, blocks go back to
# the system at once: glibc's own threshold rises with the blocks that it has seen.
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "131072"}
FAULTS = """
import ctypes, resource, torch
from qthink_core.numerics.memory import keep_memory
torch.set_num_threads(1)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        blocks = [torch.ones(n << 20) for n in (3, 5, 2)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
first = faults()
keep_memory()
faults()
print(first, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps memory by a setting")
@pytest.mark.slow
def test_blocks_that_come_again_are_not_filled_again() -> None:
    command = [sys.executable, "-c", FAULTS]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=os.environ | AT_ONCE)
    before, kept = map(int, run.stdout.split())
    assert before > 1000
    assert kept < before / 10
