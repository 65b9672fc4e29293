"""Answers on disk: the answer of each system to each question."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from qthink_core.artifacts.completions import COLUMNS, Completion, n_at_limit, n_tokens
from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.store import MAIN, listed, set_of
from qthink_core.artifacts.tables import Table

BATCH = "batch-"


@dataclass(frozen=True, kw_only=True)
class Answer(Completion):
    """A system's completion for one question.

    `seed` is the seed of the system's training, None for the base model. `condition` is `trained`, or names what was done to
    the latents (conditions.py).
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
    """A writer of the answers of one batch."""
    return TABLE.writer(answers)


def counts(answers: Sequence[Answer]) -> dict[str, int]:
    """The numbers of answers, of their tokens, and of answers cut at the token limit."""
    return {"answers": len(answers), "tokens": n_tokens(answers), "hit_limit": n_at_limit(answers)}


def read(folder: Path, test_set: str = MAIN) -> list[Answer]:
    """All answers of a system to the questions of its task or of a test set, by seed, condition and problem id."""
    names = [name for name in listed(folder, ".parquet") if BATCH in name]
    return TABLE.read(*(folder / name for name in names if set_of(Path(name).stem) == test_set))
