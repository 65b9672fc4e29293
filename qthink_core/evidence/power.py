"""Power: the smallest difference of two systems that a run can detect, from its questions, its trainings and their scatter.

The probability of detecting a difference delta > 0 of two systems on n questions, by the tests of `statistics`, two-sided
at `level`:

- One training: the exact test of McNemar. A question is discordant with probability psi = c + delta: c / 2 in each
  direction, plus delta in favour of the better system. The number of discordant questions is binomial (n, psi); of m such
  questions, the number in favour of the better system is binomial (m, (c / 2 + delta) / psi). The power is summed over both
  without approximation (Duffy, Biometrics 40, 1984, 1005-1015).
- S trainings: Student's t of the two-way variance. A cell has the variance psi - delta^2, a share of which is the same in
  every training, and trainings add a standard deviation of their own. The expected mean squares give the variance of the
  mean and Satterthwaite's degrees of freedom as in `statistics`; the power is that of the noncentral t.

There is no correction for the number of comparisons; with Holm's correction over m, the first has to pass level / m. No
torch, and only the special functions of scipy, so that a plan takes half a second.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr, bdtrik, gammaln, nctdtr, stdtrit, xlog1py, xlogy

from qthink_core.evidence.significance import ALPHA, POWER

PRECISION = 1e-5  # of the smallest difference; the tables show accuracies to 0.1 points


class Scatter(NamedTuple):
    """How much the answers of two systems of equal accuracy differ.

    `discordant`: the share of questions that one of two trained models answers right and the other does not. `repeated`: the
    share of that variance that comes from the question and is the same in other trainings. `spread`: the standard deviation
    over trainings of the difference in accuracy.
    """

    discordant: float
    repeated: float
    spread: float


# Assumed before a run, because the model cards have one training and no answers: a fifth of the questions is discordant,
# half of that variance comes from the question, and trainings differ by two points.
ASSUMED = Scatter(discordant=0.2, repeated=0.5, spread=0.02)


def smallest_difference(n: int, seeds: int, scatter: Scatter = ASSUMED, level: float = ALPHA) -> float | None:
    """The smallest difference in accuracy that is detected with probability POWER at a level; None if no difference is."""
    chance = _of_one_training(n, scatter, level) if seeds == 1 else _of_trainings(n, seeds, scatter, level)
    low, high = 0.0, 1.0 - scatter.discordant
    if chance(high) < POWER:
        return None
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if chance(middle) >= POWER else (middle, high)
    return high


def _of_one_training(n: int, scatter: Scatter, level: float) -> Callable[[float], float]:
    m = np.arange(n + 1)
    # the largest number of questions for the worse system at which the difference is significant, -1 if there is none
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
        return float(1 - np.nan_to_num(missed, nan=0.0))  # scipy underflows to a NaN

    return chance
