"""Wilson's interval of a proportion in plain Python, for programs that must start before numpy and scipy could load."""

import math
import statistics
from typing import NamedTuple

from qthink_core.evidence.significance import CONFIDENCE

QUANTILE = (1 + CONFIDENCE) / 2


class Interval(NamedTuple):
    """The limits of a confidence interval."""

    low: float
    high: float


def interval(right: int, n: int) -> Interval:
    """The score interval of `right` of n (Wilson, JASA 22, 1927, 209-212); raises ValueError for n = 0."""
    if n < 1:
        raise ValueError(f"{right} of {n} questions have no accuracy: expected at least one question")
    return at(right / n, n, statistics.NormalDist().inv_cdf(QUANTILE))


def at(p: float, n: float, z: float) -> Interval:
    """The score interval of the proportion p of n, which need not be a whole number, at the normal quantile z."""
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    return Interval(max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale))
