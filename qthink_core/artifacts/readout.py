"""Readouts: each hidden state h_k of the latent steps, read through the output head as its likeliest tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from qthink_core.artifacts.store import Writer

SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("seed", pa.int32()),
        ("step", pa.int32()),
        ("rank", pa.int32()),
        ("token", pa.string()),
        ("probability", pa.float32()),
    ]
)


class Read(NamedTuple):
    """One token of one latent step: its rank from 1 and its probability."""

    problem_id: str
    seed: int
    step: int
    rank: int
    token: str
    probability: float


def name(seed: int) -> str:
    """The unit, and file without its suffix, of one training seed's readout."""
    return f"seed-{seed}-readout"


def writer(rows: Sequence[Read]) -> Writer:
    """Writes a readout as Parquet, by question, step and rank."""
    ordered = sorted(rows, key=lambda row: (row.problem_id, row.step, row.rank))
    table = pa.Table.from_pylist([row._asdict() for row in ordered], schema=SCHEMA)
    return lambda path: pq.write_table(table, path)


def read(folder: Path, seed: int) -> dict[str, list[list[tuple[str, float]]]]:
    """The (token, probability) pairs of every latent step of one training seed, likeliest first, by question."""
    found: dict[str, list[list[tuple[str, float]]]] = {}
    for row in pq.read_table(folder / f"{name(seed)}.parquet").to_pylist():
        steps = found.setdefault(row["problem_id"], [])
        if row["rank"] == 1:
            steps.append([])
        steps[-1].append((row["token"], row["probability"]))
    return found
