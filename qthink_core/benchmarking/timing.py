"""Timing on a busy machine: two ways in turn in one process, processor time, and the median of the rounds' ratios."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from qthink_core.numerics.products import reordered

PRODUCTS = 5  # of which the fastest counts


class Ratio(NamedTuple):
    """How many times the naive way's processor time is ours: the median round, the smallest and the largest.

    `naive_s` and `own_s` are the medians of the seconds of one run.
    """

    median: float
    low: float
    high: float
    naive_s: float
    own_s: float


def seconds(compute: Callable[[], Any]) -> float:
    """The processor time of a call in seconds."""
    begun = time.process_time()
    compute()
    return time.process_time() - begun


def paired(naive: Callable[[], Any], own: Callable[[], Any], rounds: int) -> Ratio:
    """The ratio of two ways after at least one call of each, as each may set up something in its first call.

    A round is naive, own, own, naive, so that what slows the machine down steadily slows both by the same.
    """
    ratios, left, right = [], [], []
    for _ in range(rounds):
        first, second, third, fourth = (seconds(one) for one in (naive, own, own, naive))
        ratios.append((first + fourth) / (second + third))
        left += [first, fourth]
        right += [second, third]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), statistics.median(left), statistics.median(right))


def matrix_peak(side: int = 1024) -> float:
    """FLOP/s of the fastest of some square float32 products: this machine's ceiling with the threads that torch has.

    Both of torch's libraries are tried, where both are used.
    """
    left, layer = torch.randn(side, side), nn.Linear(side, side, bias=False)
    with torch.inference_mode():
        by_mkl = min(seconds(lambda: layer(left)) for _ in range(PRODUCTS + 1))
        with reordered(layer):
            by_onednn = min(seconds(lambda: layer(left)) for _ in range(PRODUCTS + 1))
    return 2 * side**3 / min(by_mkl, by_onednn)
