"""Completions on disk: what a system answered, as token ids with their text."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from qthink_core.artifacts.store import Writer, listed

SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("seed", pa.int32()),
        ("condition", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("finish", pa.string()),
    ]
)

BATCH = "batch-"


class Answer(NamedTuple):
    """One completion: token ids with the end token, text, and why it ended (`stop` or `length`).

    `seed` is that of the system's training, None for the base model; `condition` is `trained`, or what was done to the
    latents (interventions.py).
    """

    problem_id: str
    seed: int | None
    condition: str
    tokens: list[int]
    text: str
    finish: str


def writer(answers: Sequence[Answer]) -> Writer:
    """Writes one batch as Parquet."""
    table = pa.Table.from_pylist([row._asdict() for row in answers], schema=SCHEMA)
    return lambda path: pq.write_table(table, path)


def counts(answers: Sequence[Answer]) -> dict[str, int]:
    """Answers, their tokens, and how many ran into the token limit."""
    return {
        "answers": len(answers),
        "tokens": sum(len(row.tokens) for row in answers),
        "hit_limit": sum(row.finish == "length" for row in answers),
    }


def read(folder: Path) -> list[Answer]:
    """All answers of a system, by seed, condition and problem id."""
    names = [name for name in listed(folder, ".parquet") if BATCH in name]
    rows = [Answer(**row) for name in names for row in pq.read_table(folder / name).to_pylist()]
    return sorted(rows, key=lambda row: (-1 if row.seed is None else row.seed, row.condition, row.problem_id))
