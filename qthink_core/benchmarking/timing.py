"""Timing on a busy machine: two ways in turn in one process, processor time, and the median of the rounds' ratios."""

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from qthink_core.benchmarking.device import Device


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
