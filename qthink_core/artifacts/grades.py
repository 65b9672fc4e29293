"""Grades on disk: the verdict on each rollout and on each answer, separate from the rules that produce it.

Modules that read grades do not import the benchmarks' graders, so an edit of a grader that changes no verdict causes no new
training.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.store import MAIN, listed, of_set, set_of
from qthink_core.artifacts.tables import Table


class Reward(NamedTuple):
    """The verdict on one rollout."""

    problem_id: str
    rollout: int
    verdict: str


class Graded(NamedTuple):
    """The verdict on one answer of a system; `seed` and `condition` are those of the answer (answers.Answer).

    `details` is a JSON object with the benchmark's further scores.
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
        """Whether the verdict is `right`; every other verdict counts as wrong in a score."""
        return self.verdict == "right"


REWARDS = Table(pa.schema([("problem_id", pa.string()), ("rollout", pa.int32()), ("verdict", pa.string())]), Reward)
GRADES = Table(
    pa.schema(
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
    ),
    Graded,
)


def rewards_writer(rows: Sequence[Reward]) -> Writer:
    """A writer of rewards."""
    return REWARDS.writer(rows)


def read_rewards(folder: Path) -> dict[str, dict[int, int]]:
    """The rewards r in {0, 1} by problem id and rollout index."""
    rewards: dict[str, dict[int, int]] = {}
    for row in REWARDS.read(folder / "rewards.parquet"):
        rewards.setdefault(row.problem_id, {})[row.rollout] = int(row.verdict == "right")
    return rewards


def grades_writer(rows: Sequence[Graded]) -> Writer:
    """A writer of grades."""
    return GRADES.writer(rows)


def read_grades(folder: Path, test_set: str = MAIN) -> list[Graded]:
    """All grades of a task, or of one of its test sets, in the order in which they were written."""
    return GRADES.read(folder / f"{of_set(test_set, 'grades')}.parquet")


def graded_sets(folder: Path) -> list[str]:
    """The names of the task's test sets that were graded, sorted."""
    return [name for name in (set_of(Path(file).stem) for file in listed(folder, ".parquet")) if name != MAIN]
