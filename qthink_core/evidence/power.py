"""Power: the smallest difference of two systems that a run would find, from its questions, its trainings and their scatter.

The chance to find a difference delta > 0 of two systems on n questions, by the tests of `statistics`, two-sided at `level`:

- One training: the exact test of McNemar. A question is discordant with the chance psi = c + delta: of two systems that are
  alike c / 2 each way, and delta more in favour of the better one. The number of discordant questions is binomial (n, psi),
  those for the better one of m binomial (m, (c / 2 + delta) / psi); summed over both, without approximation (Duffy,
  Biometrics 40, 1984, 1005-1015).
- S trainings: Student's t of the two-way variance. A cell has the variance psi - delta^2, of which a share comes back in
  every training, and trainings have a standard deviation of their own; the mean squares that are to be expected give the
  variance of the mean and Satterthwaite's degrees of freedom as in `statistics`, and the chance is that of the noncentral t.

No correction for the number of comparisons is in it; with Holm's over m the first of them has to pass level / m. No torch,
and of scipy no more than its special functions: a plan is made in half a second.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr, bdtrik, gammaln, nctdtr, stdtrit, xlog1py, xlogy

LEVEL, POWER = 0.05, 0.8
# In points of accuracy no table shows more.
PRECISION = 1e-5


class Scatter(NamedTuple):
    """How far apart two systems are that are alike in the mean.

    `discordant`: the share of questions that one of two trained models answers right and the other does not. `repeated`: the
    share of that variance that is the question's and comes back in other trainings. `spread`: the standard deviation over
    trainings of the difference in accuracy.
    """

    discordant: float
    repeated: float
    spread: float


# Before a run (ours; the cards hold one training and no answers): a fifth of the questions, half of it the question's, and
# two points between trainings.
ASSUMED = Scatter(discordant=0.2, repeated=0.5, spread=0.02)


def smallest_difference(
    n: int, seeds: int, scatter: Scatter = ASSUMED, level: float = LEVEL, power: float = POWER
) -> float | None:
    """The smallest difference in accuracy that is found with this power; None where no difference is."""
    chance = _of_one_training(n, scatter, level) if seeds == 1 else _of_trainings(n, seeds, scatter, level)
    low, high = 0.0, 1.0 - scatter.discordant
    if chance(high) < power:
        return None
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if chance(middle) >= power else (middle, high)
    return high


def _of_one_training(n: int, scatter: Scatter, level: float) -> Callable[[float], float]:
    m = np.arange(n + 1)
    # the most questions for the worse system at which the two are still distinguishable, -1 if no count is
    most = np.floor(np.nan_to_num(bdtrik(level / 2, m, 0.5), nan=-1.0))
    most = np.where(bdtr(np.maximum(most, 0), m, 0.5) <= level / 2, most, most - 1)
    possible = (most >= 0) & (m > 0)

    def chance(difference: float) -> float:
        discordant = min(scatter.discordant + difference, 1.0)
        better = (scatter.discordant / 2 + difference) / discordant if discordant else 0.5
        log_m = gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1) + xlogy(m, discordant) + xlog1py(n - m, -discordant)
        at = np.maximum(most, 0)
        found = bdtr(at, m, 1 - better) + bdtr(at, m, better)
        return float((np.exp(log_m) * np.where(possible, found, 0.0)).sum())

    return chance


def _of_trainings(n: int, S: int, scatter: Scatter, level: float) -> Callable[[float], float]:
    def chance(difference: float) -> float:
        cell = scatter.discordant + difference - difference**2
        left_over = (1 - scatter.repeated) * cell
        questions, trainings = S * scatter.repeated * cell + left_over, n * scatter.spread**2 + left_over
        total = questions + trainings - left_over
        if total <= 0:
            return float(difference > 0)
        df = total**2 / (questions**2 / (n - 1) + trainings**2 / (S - 1))
        df = float(np.clip(df, min(S, n) - 1, max(S, n) - 1))
        missed = nctdtr(df, difference / np.sqrt(total / (S * n)), stdtrit(df, 1 - level / 2))
        return float(1 - np.nan_to_num(missed, nan=0.0))  # scipy's underflows to a NaN

    return chance
