"""Where a model is measured and by which clock, its fastest product, and two ways in turn with their median ratio."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from qthink_core.numerics.products import reordered

PRODUCTS = 5  # of which the fastest counts
# Sides of a square product that is neither bound by memory nor by launches.
CPU_SIDE, GPU_SIDE = 1024, 8192


class Device(NamedTuple):
    """Where a model computes: `cpu` or `cuda`, its dtype, and the threads of the processor."""

    name: str = "cpu"
    dtype: str = "float32"
    threads: int = 1

    def put(self, module: Any) -> Any:
        """The module there, in the dtype."""
        return module.to(self.name, getattr(torch, self.dtype))

    def now(self) -> float:
        """Seconds of the processor; those of the clock once the GPU has done what it was given."""
        if self.name == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def seconds(self, compute: Callable[[], Any]) -> float:
        """What a call takes."""
        begun = self.now()
        compute()
        return self.now() - begun

    def matrix_peak(self) -> float:
        """FLOP/s of the fastest of some large square products in the dtype: the ceiling of the device.

        On a processor both of torch's libraries are tried, where both are used.
        """
        side = CPU_SIDE if self.name == "cpu" else GPU_SIDE
        left, layer = self.put(torch.randn(side, side)), self.put(nn.Linear(side, side, bias=False))
        with torch.inference_mode():
            fastest = min(self.seconds(lambda: layer(left)) for _ in range(PRODUCTS + 1))
            with reordered(layer):
                other = min(self.seconds(lambda: layer(left)) for _ in range(PRODUCTS + 1))
        return 2 * side**3 / min(fastest, other)

    def named(self) -> str:
        """`cpu`, or the name of the GPU."""
        return self.name if self.name == "cpu" else torch.cuda.get_device_name()


def peak_of_gpu(compute: Callable[[], Any]) -> int:
    """The bytes by which the memory of the GPU exceeds what it holds now, at most, while a call computes."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    compute()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


class Ratio(NamedTuple):
    """How many times the naive way's time is ours: the median round, the smallest and the largest.

    `naive_s` and `own_s` are the medians of the seconds of one run.
    """

    median: float
    low: float
    high: float
    naive_s: float
    own_s: float


def paired(naive: Callable[[], Any], own: Callable[[], Any], rounds: int, on: Device) -> Ratio:
    """The ratio of two ways after at least one call of each, as each may set up something in its first call.

    A round is naive, own, own, naive, so that what slows the machine down steadily slows both by the same.
    """
    ratios, left, right = [], [], []
    for _ in range(rounds):
        first, second, third, fourth = (on.seconds(one) for one in (naive, own, own, naive))
        ratios.append((first + fourth) / (second + third))
        left += [first, fourth]
        right += [second, third]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), statistics.median(left), statistics.median(right))
