"""Prepared problems on disk: one schema for every task, with prompts rendered once as token ids."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from qthink_core.artifacts.store import Writer
from qthink_core.errors import DataError

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("gold", pa.string(), nullable=False),
        pa.field("rationale", pa.string()),
        pa.field("target_gold", pa.string(), nullable=False),
        pa.field("prompt_thinking", pa.list_(pa.int32()), nullable=False),
        pa.field("prompt_direct", pa.list_(pa.int32()), nullable=False),
    ]
)


class Prompted(TypedDict):
    """A problem as later stages read it: its gold answer, the text that gives it, its two prompts as token ids."""

    id: str
    question: str
    gold: str
    rationale: str | None
    target_gold: str
    prompt_thinking: list[int]
    prompt_direct: list[int]


def writer(rows: Sequence[Prompted]) -> Writer:
    """Writes one split as Parquet."""
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)
    return lambda path: pq.write_table(table, path)


def read(folder: Path, split: str) -> list[Prompted]:
    """The problems of a split by id; raises DataError when the file has other columns than this version's."""
    path = folder / f"{split}.parquet"
    table = pq.read_table(path)
    if not table.schema.equals(SCHEMA):
        raise DataError(f"{path} has the columns {table.schema.names}, not {SCHEMA.names}: run `dvc repro prepare`")
    return sorted(table.to_pylist(), key=lambda row: row["id"])
