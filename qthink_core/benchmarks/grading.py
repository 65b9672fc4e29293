"""Grading: a verdict on each rollout and each answer, by the grader of its benchmark."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from qthink_core.artifacts.answers import Answer
from qthink_core.artifacts.conditions import TRAINED
from qthink_core.artifacts.grades import Graded, Reward
from qthink_core.artifacts.rollouts import Rollout
from qthink_core.benchmarks.graders import grade
from qthink_core.benchmarks.graders.contract import Grade
from qthink_core.errors import DataError


def grade_rollouts(benchmark: str, golds: Mapping[str, str], rows: Iterable[Rollout]) -> list[Reward]:
    """The verdict on each rollout; equal texts of one problem are graded once."""
    seen: dict[tuple[str, str], Grade] = {}
    graded = []
    for row in rows:
        key = (row.problem_id, row.text)
        if key not in seen:
            seen[key] = grade(benchmark, golds[row.problem_id], row.text)
        graded.append(Reward(row.problem_id, row.rollout, seen[key].verdict))
    return graded


def grade_answers(benchmark: str, golds: Mapping[str, str], answers: Iterable[tuple[str, Sequence[Answer]]]) -> list[Graded]:
    """The verdict on each answer of each (system, answers), in order; equal texts to one question are graded once.

    Raises DataError unless each system has one answer to each question for each seed and condition (the denominator of a
    score is the whole set), and answers as trained for each seed.
    """
    seen: dict[tuple[str, str], Grade] = {}
    graded = []
    for system, rows in answers:
        check_whole(benchmark, golds, system, rows)
        for row in rows:
            key = (row.problem_id, row.text)
            if key not in seen:
                seen[key] = grade(benchmark, golds[row.problem_id], row.text)
            found = seen[key]
            graded.append(
                Graded(
                    system,
                    row.seed,
                    row.condition,
                    row.problem_id,
                    found.verdict,
                    found.extracted,
                    json.dumps(found.details, sort_keys=True),
                    len(row.tokens),
                    row.finish,
                )
            )
    return graded


def check_whole(benchmark: str, golds: Mapping[str, str], system: str, answers: Iterable[Answer]) -> None:
    """Raises DataError unless each seed has answers as trained, and each seed and condition has one answer per question."""
    groups: dict[tuple[int | None, str], list[str]] = {}
    for row in answers:
        groups.setdefault((row.seed, row.condition), []).append(row.problem_id)
    if not groups:
        raise DataError(f"{system} has no answers to the {len(golds)} questions of {benchmark}: run `dvc repro`")
    for (seed, condition), ids in groups.items():
        if (seed, TRAINED) not in groups:
            raise DataError(f"{system} (seed {seed}) has answers under {condition} but not as trained: run `dvc repro`")
        if sorted(ids) != sorted(golds):
            which = f"{system} (seed {seed}, {condition})"
            raise DataError(f"{which} has {len(ids)} answers to the {len(golds)} questions of {benchmark}: run `dvc repro`")


def verdict_counts(rows: Iterable[Graded | Reward]) -> dict[str, int]:
    """The number of rows with each verdict."""
    return dict(sorted(Counter(row.verdict for row in rows).items()))
