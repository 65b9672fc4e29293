"""The scatter of differences as a run measured it, which says what it could have found (power.py)."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from qthink_core.power import Scatter
from qthink_core.statistics import mean_squares, paired


def measured(pairs: Sequence[tuple[Bool[np.ndarray, "S Q"], Bool[np.ndarray, "S Q"]]]) -> Scatter:
    """The scatter of differences that was measured, a mean over pairs of systems on the same questions.

    Discordant beyond the difference itself; variances from the mean squares, none below 0. Of one training the spread is 0
    and everything is repeated, as nothing is known of others. Raises ValueError as `compare` does, and without a pair.
    """
    if not pairs:
        raise ValueError("no pair of systems: expected at least one to measure the scatter of")
    found = []
    for one, other in pairs:
        left, right = paired(one, other)
        S, n = left.shape
        questions, seeds, left_over = mean_squares(left - right)
        discordant = max(0.0, float(((left - right) ** 2).mean() - abs((left - right).mean())))
        found.append((discordant, max(0.0, questions - left_over) / S, left_over, max(0.0, seeds - left_over) / n))
    discordant, questions, left_over, seeds = np.mean(found, axis=0).tolist()
    repeated = questions / (questions + left_over) if questions + left_over > 0 else 1.0
    return Scatter(discordant, repeated, math.sqrt(seeds))
