"""The processes that a launcher (accelerate, torchrun) starts for one stage: which one this is, and where they meet."""

import os
from datetime import timedelta

# How long a rank waits for the others' last unit of work.
PATIENCE = timedelta(hours=6)


def rank() -> int:
    """The number of this process, 0..world()-1."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """The number of processes that compute this stage together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join() -> None:
    """Meets the other ranks."""
    if world() > 1:
        from torch import distributed

        distributed.init_process_group("gloo", timeout=PATIENCE)


def barrier() -> None:
    """Returns when all ranks have come here."""
    if world() > 1:
        from torch import distributed

        distributed.barrier()


def leave() -> None:
    """Waits until all ranks are here and parts from them."""
    if world() > 1:
        from torch import distributed

        barrier()
        distributed.destroy_process_group()
