"""Rollouts: G sampled completions a problem, made in blocks of whole problems, stored as token ids with their text."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from qthink_core.artifacts.store import Writer, listed

SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("rollout", pa.int32()),
        ("tokens", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("finish", pa.string()),
    ]
)


class Rollout(NamedTuple):
    """One completion: its problem, its index 0..G-1, its token ids with the end token, text, and why it ended."""

    problem_id: str
    rollout: int
    tokens: list[int]
    text: str
    finish: str


def blocks(ids: Sequence[str], size: int) -> list[list[str]]:
    """The problem ids in sorted order, cut into blocks of at most `size`: the plan that a resumed run repeats."""
    ordered = sorted(ids)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def writer(rollouts: Sequence[Rollout]) -> Writer:
    """Writes one block as Parquet."""
    table = pa.Table.from_pylist([row._asdict() for row in rollouts], schema=SCHEMA)
    return lambda path: pq.write_table(table, path)


def counts(rollouts: Sequence[Rollout]) -> dict[str, int]:
    """Rollouts, their tokens, and how many ran into the token limit."""
    return {
        "rollouts": len(rollouts),
        "tokens": sum(len(row.tokens) for row in rollouts),
        "cut_at_limit": sum(row.finish == "length" for row in rollouts),
    }


def read(path: Path) -> list[Rollout]:
    """The rollouts of one block in canonical order: by problem id, then index."""
    rows = (Rollout(**row) for row in pq.read_table(path).to_pylist())
    return sorted(rows, key=lambda row: (row.problem_id, row.rollout))


def files(folder: Path) -> list[Path]:
    """The files of all blocks in order; a block holds whole problems, by sorted ids. All rows take 50 bytes a token."""
    return [folder / name for name in listed(folder, ".parquet")]


def by_problem(rollouts: Iterable[Rollout]) -> dict[str, list[Rollout]]:
    """Rollouts grouped by problem, in their order."""
    groups: dict[str, list[Rollout]] = {}
    for row in rollouts:
        groups.setdefault(row.problem_id, []).append(row)
    return groups
