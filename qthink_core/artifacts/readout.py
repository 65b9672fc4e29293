"""Readouts on disk: each hidden state h_k of the latent steps, read through the output head as its likeliest tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.tables import Table


class Read(NamedTuple):
    """One token of one latent step: its rank from 1 and its probability."""

    problem_id: str
    seed: int
    step: int
    rank: int
    token: str
    probability: float


TABLE = Table(
    pa.schema(
        [
            ("problem_id", pa.string()),
            ("seed", pa.int32()),
            ("step", pa.int32()),
            ("rank", pa.int32()),
            ("token", pa.string()),
            ("probability", pa.float32()),
        ]
    ),
    Read,
    order=lambda row: (row.problem_id, row.step, row.rank),
)


def name(seed: int) -> str:
    """The unit of one training seed's readout, and its file without the suffix."""
    return f"seed-{seed}-readout"


def writer(rows: Sequence[Read]) -> Writer:
    """Writes a readout by question, step and rank."""
    return TABLE.writer(TABLE.sorted(rows))


def read(folder: Path, seed: int) -> dict[str, list[list[tuple[str, float]]]]:
    """The (token, probability) pairs of every latent step of one training seed, likeliest first, by question."""
    found: dict[str, list[list[tuple[str, float]]]] = {}
    for row in TABLE.read(folder / f"{name(seed)}.parquet"):
        steps = found.setdefault(row.problem_id, [])
        if row.rank == 1:
            steps.append([])
        steps[-1].append((row.token, row.probability))
    return found
