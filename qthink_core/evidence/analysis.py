"""What the scores of a run show, as findings: differences, power, verdicts on the latents, claims, further scores."""

import itertools
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial

from qthink_core.artifacts.conditions import TRAINED
from qthink_core.errors import DataError
from qthink_core.evidence import claims, scatter, scores, verdicts
from qthink_core.evidence.findings import Claim, Comparison, Conditions, Power
from qthink_core.evidence.power import smallest_difference
from qthink_core.evidence.significance import ALPHA
from qthink_core.evidence.statistics import compare, holm

# The order of display; any other condition is a number of latent steps and comes after these.
CONDITIONS = (TRAINED, verdicts.NONE, *verdicts.SUBSTITUTES, "teacher")


def place(condition: str) -> tuple[int, int]:
    """The sort key of a condition: first as trained, then replacements of the latents, then numbers of latent steps."""
    if condition in CONDITIONS:
        return 0, CONDITIONS.index(condition)
    return 1, int(condition.removeprefix("K="))


def comparisons(tasks: Mapping[str, scores.Task]) -> list[Comparison]:
    """Every pair of systems on every benchmark, the lower row of the table minus the higher one; Holm over all pairs."""
    pairs = [(task, left, right) for task, found in tasks.items() for right, left in itertools.combinations(found.scores, 2)]
    compared = [
        compare(tasks[task].scores[left][TRAINED].right, tasks[task].scores[right][TRAINED].right)
        for task, left, right in pairs
    ]
    adjusted = holm([one.p_method for one in compared])
    return [
        Comparison(task, left, right, one.difference, one.low, one.high, one.p_method, p, tasks[task].trainings(left, right))
        for (task, left, right), one, p in zip(pairs, compared, adjusted, strict=True)
    ]


def power(tasks: Mapping[str, scores.Task], latent: Collection[str], control: str, compared: int) -> dict[str, Power]:
    """What each benchmark could have detected, from the scatter between a latent system and the control (power.py).

    It is that of the latent system with the largest smallest difference: pairs scatter too differently for a mean.
    """
    found = {}
    for task, one in tasks.items():
        if control not in one.scores:
            continue
        pairs = [_pair_power(one, name, control, compared) for name in one.scores if name in latent]
        if pairs:
            found[task] = max(pairs, key=lambda pair: math.inf if pair.alone is None else pair.alone)
    return found


def _pair_power(task: scores.Task, system: str, control: str, compared: int) -> Power:
    left, right = task.scores[system][TRAINED].right, task.scores[control][TRAINED].right
    measured, n, seeds = scatter.measured(left, right), len(task.ids), min(len(left), len(right))
    smallest = partial(smallest_difference, n, seeds, measured)
    return Power(system, n, seeds, measured, smallest(), smallest(level=ALPHA / compared))


def conditions(task: scores.Task, system: str, K: int, control: str) -> Conditions:
    """A latent system's cells by condition, in order of display, and the verdict on its latents (verdicts.py).

    Raises DataError when the control is not among the systems.
    """
    found = task.scores[system]
    if control not in task.scores:
        raise DataError(f"the verdict on {system} needs the control {control}: add it to systems.finetuned in params.yaml")
    judged = verdicts.judge({name: one.right for name, one in found.items()}, K, task.scores[control][TRAINED].right)
    return Conditions({name: scores.cell(found[name]) for name in sorted(found, key=place)}, judged.word, judged.sentence)


def claimed(tasks: Mapping[str, scores.Task], steps: Callable[[str], int]) -> list[Claim]:
    """The model card's claims on this run's answers (claims.py), a row per claim and benchmark; `steps` gives the K."""
    right = {task: {name: one[TRAINED].right for name, one in found.scores.items()} for task, found in tasks.items()}
    tokens = {task: {name: one[TRAINED].tokens for name, one in found.scores.items()} for task, found in tasks.items()}
    return [_claim(row, steps(row.claim.left)) for row in claims.verdicts(claims.CLAIMS, right, tokens)]


def _claim(row: claims.Row, K: int) -> Claim:
    """The finding for a row of claims.py, with percentage points (the unit of the model card) turned into shares."""
    scale = 100 if row.claim.unit == claims.POINTS else 1
    published, ours, low, high = (
        None if one is None else one / scale for one in (row.published, row.difference, row.low, row.high)
    )
    note = "; ".join(filter(None, (row.note, row.claim.caveat.format(K=K))))
    return Claim(
        row.claim.words, row.task, published, ours, low, high, row.seeds, row.verdict, note=note, unit=row.claim.unit
    )


def further(tasks: Mapping[str, scores.Task]) -> dict[str, dict[str, dict[str, float]]]:
    """Further scores, where a benchmark has some, as shares of all answers, by benchmark, system and scorer."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for task, one in tasks.items():
        rows = {name: list(itertools.chain(*by[TRAINED].details)) for name, by in one.scores.items()}
        keys = sorted({key for held in rows.values() for detail in held for key in detail})
        if keys:
            found[task] = {
                name: {key: sum(detail.get(key, False) for detail in held) / len(held) for key in keys}
                for name, held in rows.items()
            }
    return found
