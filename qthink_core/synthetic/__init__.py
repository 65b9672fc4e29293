"""Problems of the tiny scale: generated rows of the three benchmarks, each with the thought that solves it."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from qthink_core.errors import ParamError
from qthink_core.synthetic import expressions, tool_calls, word_problems

TASKS = {"gsm8k": word_problems, "math500": expressions, "tooluse": tool_calls}

# The buckets of each split; a split with few of them costs many redraws.
BUCKETS = {"pretrain": range(0, 64), "train": range(64, 84), "validation": range(84, 92), "test": range(92, 100)}

Show = Callable[[Iterable[int], int], Iterator[int]]


class Worked(NamedTuple):
    """A problem with what a reasoning model should write about it."""

    row: dict[str, object]
    thought: str
    answer: str


def worked(task: str, split: str, n: int, seed: int, show: Show | None = None) -> list[Worked]:
    """n problems of a split in the benchmark's own row schema, the same bytes for the same arguments.

    A problem's bucket is the sha256 of its working, whatever names and words dress it, and every bucket belongs to
    one split: no computation of one split, of any task or seed, occurs in another. No working occurs twice among
    the n problems. `show` passes the numbers of the problems on, as a progress bar does. Raises ParamError for an unknown
    task or split.
    """
    if task not in TASKS or split not in BUCKETS:
        known = f"tasks are {', '.join(TASKS)}, splits {', '.join(BUCKETS)}"
        raise ParamError(f"no problems of {task!r}, split {split!r} can be generated: {known}")
    entropy = [seed, list(TASKS).index(task), list(BUCKETS).index(split)]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
    found: list[Worked] = []
    seen: set[str] = set()
    for index in show(range(n), n) if show else range(n):
        row, thought, answer = TASKS[task].draw(rng)
        while thought in seen or bucket(thought) not in BUCKETS[split]:
            row, thought, answer = TASKS[task].draw(rng)
        seen.add(thought)
        found.append(Worked(_numbered(task, split, index, row), thought, answer))
    return found


def bucket(thought: str) -> int:
    """The bucket 0..99 of a working."""
    return int.from_bytes(hashlib.sha256(thought.encode()).digest()[:8], "big") % 100


def _numbered(task: str, split: str, index: int, row: dict[str, object]) -> dict[str, object]:
    match task:
        case "math500":
            return row | {"unique_id": f"tiny/{split}/{index:05}.json"}
        case "tooluse":
            return row | {"idx": index}
        case _:
            return row
