"""The processes that a launcher (accelerate, torchrun) starts for one stage: their number, and what they exchange.

Without a launcher there is one process, rank 0 of a world of 1, and the functions here do nothing; torch is imported only
under a launcher.
"""

import contextlib
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qthink_core.artifacts.store import Manifest, Work
from qthink_core.errors import DataError, QThinkError, StoppedError, UnavailableError

if TYPE_CHECKING:
    from torch import Tensor

# The messages of gloo, NCCL and their store when a peer has ended or does not answer.
GONE = re.compile(
    r"closed by peer|reset by peer|Broken pipe|caused pair closure|Timed out waiting \d+ms|remote process exited"
    r"|Connection was likely closed"
)
# How long a rank waits for the last unit of the others. If one has died, the launcher ends all ranks.
PATIENCE = timedelta(hours=6)


class LostError(StoppedError):
    """The other ranks have ended, so this one cannot continue; exit code 75."""


class JoinedWork(Work):
    """The work folder that rank 0 has opened, for the other ranks: they may commit units; rank 0 checks and publishes."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder / fingerprint[:16]
        if not self.folder.is_dir():
            raise DataError(
                f"{self.folder}, which rank 0 opened, is missing here: start all ranks in one folder that all machines "
                "share, with the same code, parameters and inputs"
            )

    def require(self, units: Collection[str], what: str, fix: str) -> None:
        """Does nothing, because rank 0 checks."""

    def publish(self, out: Path, artifact: str, units: Collection[str], about: Mapping[str, Any] | None = None) -> Manifest:
        """An empty manifest, because rank 0 publishes and shows the real one."""
        return Manifest(artifact, str(out), "", counts=Counter())


def launched() -> bool:
    """Whether a launcher started this process; some clusters set one or two of these variables themselves, but never all."""
    return {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys()


def rank() -> int:
    """The number of this process, 0..world()-1. Rank 0 alone locks, cleans, publishes, logs and prints."""
    return int(os.environ["RANK"]) if launched() else 0


def world() -> int:
    """The number of processes that compute this stage together."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def local() -> int:
    """The number of this process on its machine."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def forsaken() -> bool:
    """Whether accelerate was asked for several processes but started only this one.

    Without a GPU, or with --cpu, it leaves the start to MPI, and passes its settings in the environment.
    """
    return not launched() and {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys()


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = re.sub(r"^\[[^]]*\] ", "", "; ".join(filter(None, map(str.strip, str(error).splitlines()))))
        if GONE.search(reason):
            reason = reason.partition(". ")[0]
            raise LostError(
                f"the other ranks have ended ({reason}); finished units are kept, `dvc repro` continues"
            ) from None
        raise UnavailableError(
            f"the ranks cannot reach each other ({reason}): set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to the network "
            "to use; NCCL_DEBUG=INFO shows details"
        ) from None


def join() -> None:
    """Connects to the other ranks: with gloo for tensors in main memory, with NCCL for tensors on GPUs."""
    if not launched():
        return
    import torch
    from torch import distributed

    with _reaching():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=PATIENCE)


def joined() -> bool:
    """Whether this process is connected to other ranks."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()


def leave() -> None:
    """Waits for all ranks and disconnects from them."""
    if not launched():
        return
    from torch import distributed

    barrier()
    distributed.destroy_process_group()


def barrier() -> None:
    """Returns when all ranks have called it; raises LostError when one has ended."""
    total([0.0])


def total(values: Sequence[float]) -> list[float]:
    """Each number summed over all ranks in float64, with the same bits on every rank."""
    if world() == 1:
        return list(values)
    import torch

    sums = torch.tensor(values, dtype=torch.float64)
    sum_(sums)
    return sums.tolist()


def sum_(tensor: "Tensor") -> None:
    """Replaces a tensor by its sum over all ranks, with the same bits on every rank."""
    if world() > 1:
        from torch import distributed

        with _reaching():
            distributed.all_reduce(tensor)


def copy_(tensor: "Tensor", source: int = 0) -> None:
    """Replaces a tensor by that of one rank."""
    if world() > 1:
        from torch import distributed

        with _reaching():
            distributed.broadcast(tensor, source)


@contextlib.contextmanager
def first() -> Iterator[None]:
    """Lets rank 0 run the block before the other ranks."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()


@contextlib.contextmanager
def as_one(kind: type[QThinkError]) -> Iterator[None]:
    """Raises an error of this kind on all ranks if any rank raises one in the block, with the message of the first."""
    fault = None
    try:
        yield
    except kind as error:
        if world() == 1:
            raise
        fault = str(error)
    if world() > 1:
        lengths = total([len(fault.encode()) * (one == rank()) if fault else 0 for one in range(world())])
        if any(lengths):
            source = next(one for one in range(world()) if lengths[one])
            raise kind(f"rank {source}: {_shared(fault, int(lengths[source]), source)}", everywhere=True)


def _shared(text: str | None, size: int, source: int) -> str:
    import torch

    mine = text.encode() if text and rank() == source else bytes(size)
    letters = torch.frombuffer(bytearray(mine), dtype=torch.uint8)
    copy_(letters, source)
    return bytes(letters.tolist()).decode()
