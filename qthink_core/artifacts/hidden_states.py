"""Hidden states on disk: a shard for each block of rollouts.

The shards of the shared pair (pairs.py) are at the top of the artifact, those of each further pair in a folder inside it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.pairs import Pair
from qthink_core.artifacts.store import listed
from qthink_core.artifacts.tables import Table, array_writer


class Source(NamedTuple):
    """The rollout whose states a row of a shard holds, and the number of tokens in its thought."""

    problem_id: str
    rollout: int
    think_tokens: int


INDEX = Table(pa.schema([("problem_id", pa.string()), ("rollout", pa.int32()), ("think_tokens", pa.int32())]), Source)


def shard(
    name: str, sources: Sequence[Source], states: Float[np.ndarray, "N R D"], pairs: Sequence[Pair]
) -> dict[str, Writer]:
    """The files of one block of rollouts, by name: for each pair the states as .npy and their sources as .parquet.

    Along R the states of the pairs follow each other; the first pair is the shared one.
    """
    files: dict[str, Writer] = {}
    start = 0
    for pair in pairs:
        own = str(pair.inside(Path(), pairs[0]) / name)
        files |= {f"{own}.npy": array_writer(states[:, start : start + pair.K]), f"{own}.parquet": INDEX.writer(sources)}
        start += pair.K
    return files


def pair_folders(folder: Path) -> list[str]:
    """The folders inside an artifact of hidden states that hold shards: "" for the shared pair, then the further pairs."""
    return sorted({str(Path(name).parent).removeprefix(".") for name in listed(folder, ".npy")})


def read(folder: Path, pair: str = "") -> dict[str, dict[int, Float[np.ndarray, "K D"]]]:
    """The states of every usable rollout by problem and rollout index, in canonical order; mapped, not loaded.

    `pair` is one of `pair_folders`.
    """
    found: dict[str, dict[int, Float[np.ndarray, "K D"]]] = {}
    for name in listed(folder, ".npy"):
        if Path(name).parent != Path(pair):
            continue
        states = np.load(folder / name, allow_pickle=False, mmap_mode="r")
        index = INDEX.read(folder / name.replace(".npy", ".parquet"))
        for state, row in zip(states, index, strict=True):
            found.setdefault(row.problem_id, {})[row.rollout] = state
    return found
