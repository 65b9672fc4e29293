"""Extraction: the tokens whose hidden states are read, and the shards that store these states.

One pass over a rollout reads the positions of all pairs (artifacts/pairs.py). The shards of the shared pair are at the top
of the artifact; each further pair has a folder of its own inside it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.pairs import Pair
from qthink_core.artifacts.rollouts import Rollout
from qthink_core.artifacts.store import listed
from qthink_core.artifacts.tables import Table, array_writer
from qthink_core.method.positions import RULES
from qthink_core.method.think import CUT, ENDED_INSIDE, WHOLE, Marks, block_of

INDEX = Table[dict[str, Any]](
    pa.schema([("problem_id", pa.string()), ("rollout", pa.int32()), ("think_tokens", pa.int32())]), dict
)


class Row(NamedTuple):
    """One rollout to read: its tokens up to the last needed position, and the positions of all pairs in the sequence."""

    rollout: Rollout
    think_tokens: int
    tokens: list[int]
    positions: list[int]

    @property
    def name(self) -> str:
        """The rollout's name in error messages."""
        return f"rollout {self.rollout.rollout} of {self.rollout.problem_id}"


def select(
    rollouts: Sequence[Rollout],
    prompts: Mapping[str, Sequence[int]],
    marks: Marks,
    pairs: Sequence[Pair],
    cut_blocks: str,
) -> tuple[list[Row], dict[str, int]]:
    """The rollouts with a usable think block, and counts of blocks by state (decisions 3 and 4).

    A block is incomplete when the token limit cuts it or the model ends its turn inside it. An incomplete block is used up
    to its last token, unless `cut_blocks` is `drop`. A block that is empty or never opened has no positions. Which rollouts
    are usable does not depend on the pairs.
    """
    usable = {WHOLE} if cut_blocks == "drop" else {WHOLE, CUT, ENDED_INSIDE}
    rows, counts = [], {"usable": 0}
    for rollout in rollouts:
        block = block_of(rollout, prompts, marks)
        counts[block.state] = counts.get(block.state, 0) + 1
        if block.state not in usable:
            continue
        prompt = prompts[rollout.problem_id]
        last = len(rollout.tokens) - 1
        wanted = [index for pair in pairs for index in RULES[pair.positions](block, pair.K)]
        at = [len(prompt) + min(index, last) for index in wanted]
        tokens = [*prompt, *rollout.tokens][: max(at) + 1]
        rows.append(Row(rollout, block.stop - block.start, tokens, at))
        counts["usable"] += 1
    return rows, counts


def distinct(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """The rows without duplicates, and for every row the index of its equal among them.

    Two rows are duplicates when they have the same tokens and positions: then their hidden states are the same, too.
    """
    first: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    once: list[Row] = []
    which = []
    for row in rows:
        key = tuple(row.tokens), tuple(row.positions)
        if key not in first:
            first[key] = len(once)
            once.append(row)
        which.append(first[key])
    return once, which


def writers(name: str, rows: Sequence[Row], states: Float[np.ndarray, "N K D"]) -> dict[str, Writer]:
    """The two files of one shard: the states as .npy and, as .parquet, the rollout of each row of states."""
    index = [
        {
            "problem_id": row.rollout.problem_id,
            "rollout": row.rollout.rollout,
            "think_tokens": row.think_tokens,
        }
        for row in rows
    ]
    return {f"{name}.npy": array_writer(states), f"{name}.parquet": INDEX.writer(index)}


def shard(name: str, rows: Sequence[Row], states: Float[np.ndarray, "N R D"], pairs: Sequence[Pair]) -> dict[str, Writer]:
    """The files of one block of rollouts, for all pairs.

    R holds the positions of the pairs one after another, in the order of `pairs`. The first pair is the shared one.
    """
    files: dict[str, Writer] = {}
    start = 0
    for pair in pairs:
        own = states[:, start : start + pair.K]
        files |= writers(str(pair.inside(Path(), pairs[0]) / name), rows, own)
        start += pair.K
    return files


def pair_folders(folder: Path) -> list[str]:
    """The folders of shards inside an artifact of hidden states: "" for the shared pair, then those of the further pairs."""
    return sorted({str(Path(name).parent).removeprefix(".") for name in listed(folder, ".npy")})


def read_shards(folder: Path, pair: str = "") -> dict[str, dict[int, Float[np.ndarray, "K D"]]]:
    """The states of every usable rollout by problem id and rollout index, in canonical order, as memory maps of the files.

    `pair` is one of `pair_folders`.
    """
    found: dict[str, dict[int, Float[np.ndarray, "K D"]]] = {}
    for name in listed(folder, ".npy"):
        if Path(name).parent != Path(pair):
            continue
        states = np.load(folder / name, allow_pickle=False, mmap_mode="r")
        index = INDEX.read(folder / name.replace(".npy", ".parquet"))
        for state, row in zip(states, index, strict=True):
            found.setdefault(row["problem_id"], {})[row["rollout"]] = state
    return found
