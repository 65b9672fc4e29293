"""The scatter of differences measured in a run, from which power.py computes what the run could have detected."""

import math

import numpy as np
from jaxtyping import Bool

from qthink_core.evidence.power import Scatter
from qthink_core.evidence.statistics import mean_squares, paired


def measured(one: Bool[np.ndarray, "_S _Q"], other: Bool[np.ndarray, "_S _Q"]) -> Scatter:
    """The scatter of the difference of two systems on the same questions.

    `discordant` is the share beyond the difference itself; variances come from the mean squares and are at least 0. With one
    training the spread is 0 and `repeated` is 1, because other trainings are unknown. Raises ValueError as `compare` does.
    """
    left, right = paired(one, other)
    S, n = left.shape
    questions, seeds, left_over = mean_squares(left - right)
    discordant = max(0.0, float(((left - right) ** 2).mean() - abs((left - right).mean())))
    own = max(0.0, questions - left_over) / S
    repeated = own / (own + left_over) if own + left_over > 0 else 1.0
    return Scatter(discordant, repeated, math.sqrt(max(0.0, seeds - left_over) / n))
