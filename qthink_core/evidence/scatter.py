"""The scatter of differences as a run measured it, which says what it could have found (power.py)."""

import math

import numpy as np
from jaxtyping import Bool

from qthink_core.evidence.power import Scatter
from qthink_core.evidence.statistics import mean_squares, paired


def measured(one: Bool[np.ndarray, "_S _Q"], other: Bool[np.ndarray, "_S _Q"]) -> Scatter:
    """The scatter of the difference of two systems on the same questions.

    Discordant beyond the difference itself; variances from the mean squares, none below 0. Of one training the spread is 0
    and everything is repeated, as nothing is known of others. Raises ValueError as `compare` does.
    """
    left, right = paired(one, other)
    S, n = left.shape
    questions, seeds, left_over = mean_squares(left - right)
    discordant = max(0.0, float(((left - right) ** 2).mean() - abs((left - right).mean())))
    own = max(0.0, questions - left_over) / S
    repeated = own / (own + left_over) if own + left_over > 0 else 1.0
    return Scatter(discordant, repeated, math.sqrt(max(0.0, seeds - left_over) / n))
