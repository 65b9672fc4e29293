"""Grading: verdicts on rollouts and on answers, by the page of their benchmark, one row for each text and none dropped."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from qthink_core.answers import Grade, grade
from qthink_core.artifacts import Writer
from qthink_core.completions import TRAINED, Answer
from qthink_core.errors import DataError
from qthink_core.rollouts import Rollout

REWARDS = pa.schema([("problem_id", pa.string()), ("rollout", pa.int32()), ("verdict", pa.string())])
GRADES = pa.schema(
    [
        ("system", pa.string()),
        ("seed", pa.int32()),
        ("condition", pa.string()),
        ("problem_id", pa.string()),
        ("verdict", pa.string()),
        ("extracted", pa.string()),
        ("details", pa.string()),
        ("n_tokens", pa.int32()),
        ("finish", pa.string()),
    ]
)


class Reward(NamedTuple):
    """The verdict on one rollout."""

    problem_id: str
    rollout: int
    verdict: str


class Graded(NamedTuple):
    """The verdict on one answer of one system, by training seed (None for the base) and condition (completions.Answer).

    `details` is a JSON object of a benchmark's further scores.
    """

    system: str
    seed: int | None
    condition: str
    problem_id: str
    verdict: str
    extracted: str | None
    details: str
    n_tokens: int
    finish: str

    @property
    def right(self) -> bool:
        """Whether the verdict is `right`; every other one counts as wrong in a score."""
        return self.verdict == "right"


def grade_rollouts(task: str, golds: Mapping[str, str], rows: Iterable[Rollout]) -> list[Reward]:
    """The verdict on each rollout; equal texts of one problem are graded once."""
    seen: dict[tuple[str, str], Grade] = {}
    graded = []
    for row in rows:
        key = (row.problem_id, row.text)
        if key not in seen:
            seen[key] = grade(task, golds[row.problem_id], row.text)
        graded.append(Reward(row.problem_id, row.rollout, seen[key].verdict))
    return graded


def grade_answers(task: str, golds: Mapping[str, str], answers: Iterable[tuple[str, Sequence[Answer]]]) -> list[Graded]:
    """The verdict on each answer of each (system, answers), in order; equal texts to one question are graded once.

    Raises DataError unless a system has, for each seed and condition, one answer to each question (a score has the whole
    set as its denominator), and for each seed those as trained.
    """
    seen: dict[tuple[str, str], Grade] = {}
    graded = []
    for system, rows in answers:
        check_whole(task, golds, system, rows)
        for row in rows:
            key = (row.problem_id, row.text)
            if key not in seen:
                seen[key] = grade(task, golds[row.problem_id], row.text)
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


def check_whole(task: str, golds: Mapping[str, str], system: str, answers: Iterable[Answer]) -> None:
    """Raises DataError unless each seed has answers as trained, and each seed and condition one to each question."""
    groups: dict[tuple[int | None, str], list[str]] = {}
    for row in answers:
        groups.setdefault((row.seed, row.condition), []).append(row.problem_id)
    if not groups:
        raise DataError(f"{system} has no answers to the {len(golds)} questions of {task}: run `dvc repro`")
    for (seed, condition), ids in groups.items():
        if (seed, TRAINED) not in groups:
            raise DataError(f"{system} (seed {seed}) has answers under {condition} but not as trained: run `dvc repro`")
        if sorted(ids) != sorted(golds):
            which = f"{system} (seed {seed}, {condition})"
            raise DataError(f"{which} has {len(ids)} answers to the {len(golds)} questions of {task}: run `dvc repro`")


def verdict_counts(rows: Iterable[Graded | Reward]) -> dict[str, int]:
    """How often each verdict was given, by name."""
    return dict(sorted(Counter(row.verdict for row in rows).items()))


def rewards_writer(rows: Sequence[Reward]) -> Writer:
    """Writes rewards as Parquet."""
    table = pa.Table.from_pylist([row._asdict() for row in rows], schema=REWARDS)
    return lambda path: pq.write_table(table, path)


def read_rewards(folder: Path) -> dict[str, dict[int, int]]:
    """r in {0, 1} by problem and rollout index."""
    rewards: dict[str, dict[int, int]] = {}
    for row in pq.read_table(folder / "rewards.parquet").to_pylist():
        rewards.setdefault(row["problem_id"], {})[row["rollout"]] = int(row["verdict"] == "right")
    return rewards


def grades_writer(rows: Sequence[Graded]) -> Writer:
    """Writes grades as Parquet."""
    table = pa.Table.from_pylist([row._asdict() for row in rows], schema=GRADES)
    return lambda path: pq.write_table(table, path)


def read_grades(folder: Path) -> list[Graded]:
    """All grades of a task."""
    return [Graded(**row) for row in pq.read_table(folder / "grades.parquet").to_pylist()]
