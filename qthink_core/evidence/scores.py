"""Scores: verdicts on the answers of a run, as arrays with a row per training seed (S) and a column per question (Q)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from qthink_core.artifacts.completions import LENGTH
from qthink_core.artifacts.conditions import TRAINED
from qthink_core.artifacts.grades import Graded, read_grades
from qthink_core.artifacts.store import MAIN
from qthink_core.errors import DataError
from qthink_core.evidence.findings import Cell
from qthink_core.evidence.statistics import estimate


class Scores(NamedTuple):
    """The scores of a system under one condition: verdicts, right or not, generated tokens, and whether the limit was hit.

    Rows are training seeds in ascending order (the base model has one row), columns questions in the order of their ids.
    """

    verdicts: list[list[str]]
    right: Bool[np.ndarray, "S Q"]
    tokens: Float[np.ndarray, "S Q"]
    at_limit: Bool[np.ndarray, "S Q"]
    details: list[list[dict[str, bool]]]


class Task(NamedTuple):
    """A benchmark's question ids in order, its training seeds by system, and its scores by system and condition."""

    ids: list[str]
    seeds: dict[str, list[int | None]]
    scores: dict[str, dict[str, Scores]]

    def trainings(self, *systems: str) -> int | None:
        """The smallest number of trainings among the trained systems; None if no system was trained."""
        return min((len(self.seeds[name]) for name in systems if self.seeds[name] != [None]), default=None)

    def first_seed(self, system: str) -> int:
        """The first training seed of a system that was trained."""
        seed = self.seeds[system][0]
        assert seed is not None, f"{system} was not trained"
        return seed


def read(folder: Path, systems: Sequence[str], test_set: str = MAIN) -> Task:
    """The scores of a task's grades, or of those of a test set, systems in the order given.

    Raises DataError when a system was not graded, or not on the same questions and seeds under every condition.
    """
    groups: dict[str, dict[str, dict[int | None, list[Graded]]]] = {}
    for row in read_grades(folder, test_set):
        groups.setdefault(row.system, {}).setdefault(row.condition, {}).setdefault(row.seed, []).append(row)
    fix = f"run `dvc repro grade@{folder.name}`"
    missing = [system for system in systems if TRAINED not in groups.get(system, {})]
    if missing:
        raise DataError(f"{folder} has no grades of {', '.join(missing)}: {fix}")
    ids = _ids(next(iter(groups[systems[0]][TRAINED].values())))
    seeds = {system: sorted(groups[system][TRAINED], key=_rank) for system in systems}
    for system in systems:
        for condition, by_seed in groups[system].items():
            if set(by_seed) != set(seeds[system]) or any(_ids(rows) != ids for rows in by_seed.values()):
                raise DataError(
                    f"{folder} grades {system} under {condition} on other questions or seeds than the rest: {fix}"
                )
    scores = {system: {condition: _scores(by_seed) for condition, by_seed in groups[system].items()} for system in systems}
    return Task(ids, seeds, scores)


def _ids(rows: Sequence[Graded]) -> list[str]:
    return sorted(row.problem_id for row in rows)


def _rank(seed: int | None) -> int:
    return -1 if seed is None else seed


def _scores(by_seed: dict[int | None, list[Graded]]) -> Scores:
    table = [sorted(by_seed[seed], key=lambda row: row.problem_id) for seed in sorted(by_seed, key=_rank)]
    return Scores(
        [[row.verdict for row in rows] for rows in table],
        np.array([[row.right for row in rows] for rows in table]),
        np.array([[float(row.n_tokens) for row in rows] for rows in table]),
        np.array([[row.finish == LENGTH for row in rows] for rows in table]),
        [[json.loads(row.details) for row in rows] for rows in table],
    )


def cell(scores: Scores, latents: int = 0) -> Cell:
    """The cell of a system with a number of latent steps: accuracy with its errors, mean tokens, the share at the limit.

    Tokens are a mean over answers and seeds of the tokens generated for thinking and answer, without latent steps. A verdict
    other than `right` counts as wrong.
    """
    return Cell(*estimate(scores.right), float(scores.tokens.mean()), float(scores.at_limit.mean()), latents)
