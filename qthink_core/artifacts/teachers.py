"""Teachers on disk: for each problem, the K states that its latent steps learn to match."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.tables import Table, array_writer

STATES, INDEX = "teachers.npy", "teachers.parquet"
TABLE = Table[dict[str, Any]](
    pa.schema([("problem_id", pa.string()), ("n_rollouts", pa.int32()), ("fell_back", pa.bool_())]), dict
)


class Teacher(NamedTuple):
    """The K averaged states of one problem, how many rollouts they average, and whether the fallback was used."""

    states: Float[np.ndarray, "K D"]
    n_rollouts: int
    fell_back: bool


def writers(made: Mapping[str, Teacher], pair: str = "") -> dict[str, Writer]:
    """The teachers of a task: the states as .npy and, row by row, whose they are as .parquet, in the folder of a pair."""
    rows = [{"problem_id": name, "n_rollouts": one.n_rollouts, "fell_back": one.fell_back} for name, one in made.items()]
    states_PKD = np.stack([one.states for one in made.values()]) if made else np.empty((0, 0, 0), np.float32)
    folder = Path(pair)
    return {str(folder / STATES): array_writer(states_PKD), str(folder / INDEX): TABLE.writer(rows)}


def read(folder: Path) -> dict[str, Float[np.ndarray, "K D"]]:
    """The teacher of each problem that has one."""
    states = np.load(folder / STATES, allow_pickle=False)
    return {row["problem_id"]: state for row, state in zip(TABLE.read(folder / INDEX), states, strict=True)}
