"""Grades on disk: the verdict on each rollout and on each answer, apart from the rules by which it was given.

What reads grades does not reach the benchmarks' pages, so an edit of a scoring rule trains nothing again as long as no
verdict changes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from qthink_core.artifacts.store import Writer

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
