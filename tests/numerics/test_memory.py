"""Freed memory stays in a process that answers."""

import subprocess
import sys

import pytest

# Page faults of large blocks that are made and freed again, without and with kept memory.
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
    found = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=120).stdout
    before, kept = map(int, found.split())
    assert before > 1000
    assert kept < before / 10
