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
    """One of the G completions of a problem; `rollout` is its index, 0..G-1."""

    problem_id: str
    rollout: int


TABLE = Table(
    pa.schema([("problem_id", pa.string()), ("rollout", pa.int32()), *COLUMNS]),
    Rollout,
    order=lambda row: (row.problem_id, row.rollout),
)


def writer(rollouts: Sequence[Rollout]) -> Writer:
    """A writer of one block."""
    return TABLE.writer(rollouts)


def counts(rollouts: Sequence[Rollout]) -> dict[str, int]:
    """The numbers of rollouts, of their tokens, and of rollouts cut at the token limit."""
    return {"rollouts": len(rollouts), "tokens": n_tokens(rollouts), "cut_at_limit": n_at_limit(rollouts)}


def read(path: Path) -> list[Rollout]:
    """The rollouts of one block in canonical order: by problem id, then index."""
    return TABLE.read(path)


def files(folder: Path) -> list[Path]:
    """The files of all blocks in the order of their problem ids; read them one by one, as a token takes 50 bytes."""
    return [folder / name for name in listed(folder, ".parquet")]


def by_problem(rollouts: Iterable[Rollout]) -> dict[str, list[Rollout]]:
    """The rollouts by problem id, in the order given."""
    groups: dict[str, list[Rollout]] = {}
    for row in rollouts:
        groups.setdefault(row.problem_id, []).append(row)
    return groups
