"""Rollouts on disk: G sampled completions of each problem, in blocks of whole problems."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from qthink_core.artifacts.completions import COLUMNS, Completion, n_at_limit, n_tokens
from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.store import listed
from qthink_core.artifacts.tables import Table


@dataclass(frozen=True, kw_only=True)
class Rollout(Completion):
    """The completion of index `rollout` (0..G-1) of a problem."""

    problem_id: str
    rollout: int


TABLE = Table(
    pa.schema([("problem_id", pa.string()), ("rollout", pa.int32()), *COLUMNS]),
    Rollout,
    order=lambda row: (row.problem_id, row.rollout),
)


def writer(rollouts: Sequence[Rollout]) -> Writer:
    """Writes one block."""
    return TABLE.writer(rollouts)


def counts(rollouts: Sequence[Rollout]) -> dict[str, int]:
    """Rollouts, their tokens, and how many the token limit cut."""
    return {"rollouts": len(rollouts), "tokens": n_tokens(rollouts), "cut_at_limit": n_at_limit(rollouts)}


def read(path: Path) -> list[Rollout]:
    """The rollouts of one block in canonical order: by problem id, then index."""
    return TABLE.read(path)


def files(folder: Path) -> list[Path]:
    """The files of all blocks in order, so by sorted problem ids. Read at once, all rows would take 50 bytes a token."""
    return [folder / name for name in listed(folder, ".parquet")]


def by_problem(rollouts: Iterable[Rollout]) -> dict[str, list[Rollout]]:
    """Rollouts grouped by problem, in their order."""
    groups: dict[str, list[Rollout]] = {}
    for row in rollouts:
        groups.setdefault(row.problem_id, []).append(row)
    return groups
