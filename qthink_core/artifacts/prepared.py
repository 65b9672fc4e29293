"""Prepared problems on disk, with the same columns for every task; prompts are token ids, rendered once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa

from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.store import MAIN, manifest_of, of_set
from qthink_core.artifacts.tables import Table
from qthink_core.errors import DataError

TRAIN, VALIDATION, TEST = ("train", "validation", "test")


class Prompted(TypedDict):
    """A problem for later stages: its question, its gold answer and solution, and its two prompts as token ids."""

    id: str
    question: str
    gold: str
    rationale: str | None
    target_gold: str
    prompt_thinking: list[int]
    prompt_direct: list[int]


TABLE = Table(
    pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("question", pa.string(), nullable=False),
            pa.field("gold", pa.string(), nullable=False),
            pa.field("rationale", pa.string()),
            pa.field("target_gold", pa.string(), nullable=False),
            pa.field("prompt_thinking", pa.list_(pa.int32()), nullable=False),
            pa.field("prompt_direct", pa.list_(pa.int32()), nullable=False),
        ]
    ),
    Prompted,
    order=lambda row: row["id"],
)


def writer(rows: Sequence[Prompted]) -> Writer:
    """A writer of one split."""
    return TABLE.writer(rows)


def read(folder: Path, split: str) -> list[Prompted]:
    """The problems of a split, sorted by id; raises DataError when the file has other columns than this version's."""
    return TABLE.read(folder / f"{split}.parquet")


def questions(folder: Path, sets: Path, split: str) -> dict[str, list[Prompted]]:
    """The scored questions of a task by test set: MAIN are those of its split, then come the sets in `sets`."""
    names = manifest_of(sets).about["sets"]
    return {MAIN: read(folder, split)} | {name: read(sets, of_set(name, TEST)) for name in names}


def about(folder: Path) -> dict[str, Any]:
    """What the manifest says about the problems: `benchmark`, `source` and, unless they are generated, `splits`.

    Of each split it has the source, the rows, and those that were left out by reason. Raises DataError where an older
    version of `prepare` has not said it.
    """
    found = manifest_of(folder).about
    if "benchmark" not in found:
        raise DataError(f"{folder} does not say the benchmark of its problems: run `dvc repro` to prepare them again")
    return found


def benchmark(folder: Path) -> str:
    """The benchmark with the prompts and the grader of these problems, which may have the name of the user's own task."""
    return str(about(folder)["benchmark"])


def published(folder: Path) -> bool:
    """Whether the test problems are those of the published benchmark."""
    return bool(about(folder).get("splits", {}).get(TEST, {}).get("published", False))
