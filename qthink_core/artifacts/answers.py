"""Answers on disk: what each system answered to each question."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from qthink_core.artifacts.completions import COLUMNS, Completion, n_at_limit, n_tokens
from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.store import listed
from qthink_core.artifacts.tables import Table

BATCH = "batch-"


@dataclass(frozen=True, kw_only=True)
class Answer(Completion):
    """The completion of a question.

    `seed` is that of the system's training, None for the base model. `condition` is `trained`, or what was done to the
    latents (interventions.py).
    """

    problem_id: str
    seed: int | None
    condition: str


TABLE = Table(
    pa.schema([("problem_id", pa.string()), ("seed", pa.int32()), ("condition", pa.string()), *COLUMNS]),
    Answer,
    order=lambda row: (-1 if row.seed is None else row.seed, row.condition, row.problem_id),
)


def writer(answers: Sequence[Answer]) -> Writer:
    """Writes the answers of one batch."""
    return TABLE.writer(answers)


def counts(answers: Sequence[Answer]) -> dict[str, int]:
    """Answers, their tokens, and how many the token limit cut."""
    return {"answers": len(answers), "tokens": n_tokens(answers), "hit_limit": n_at_limit(answers)}


def read(folder: Path) -> list[Answer]:
    """All answers of a system, by seed, condition and problem id."""
    return TABLE.read(*(folder / name for name in listed(folder, ".parquet") if BATCH in name))
