"""Readouts on disk: the most likely tokens of each hidden state h_k of the latent steps, by the output head."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.tables import Table


class Read(NamedTuple):
    """One of the most likely tokens of one latent step: its rank, from 1, and its probability."""

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
    """The name of the unit with one training seed's readout; its file has the same name with a suffix."""
    return f"seed-{seed}-readout"


def writer(rows: Sequence[Read]) -> Writer:
    """A writer of a readout, sorted by question, step and rank."""
    return TABLE.writer(TABLE.sorted(rows))


def read(folder: Path, seed: int) -> dict[str, list[list[tuple[str, float]]]]:
    """By question, the (token, probability) pairs of every latent step of one training seed, most likely first."""
    found: dict[str, list[list[tuple[str, float]]]] = {}
    for row in TABLE.read(folder / f"{name(seed)}.parquet"):
        steps = found.setdefault(row.problem_id, [])
        if row.rank == 1:
            steps.append([])
        steps[-1].append((row.token, row.probability))
    return found
