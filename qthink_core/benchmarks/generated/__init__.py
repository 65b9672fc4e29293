"""Problems of the tiny scale: generated rows of the three benchmarks, each with the steps that solve it."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from qthink_core.artifacts.files import number_of
from qthink_core.benchmarks.generated import expressions, tool_calls, word_problems
from qthink_core.benchmarks.generated.chains import Step, working
from qthink_core.benchmarks.world import World
from qthink_core.errors import ParamError

TASKS = {"gsm8k": word_problems, "math500": expressions, "tooluse": tool_calls}

# The buckets of each split; with few buckets, many problems must be drawn again.
BUCKETS = {"pretrain": range(0, 64), "train": range(64, 84), "validation": range(84, 92), "test": range(92, 100)}
MAX_REDRAWS = 20_000  # draws without a new problem, after which nearly all problems of the split have been found
# The parameters that set how many problems of a split are asked for.
ASKED_BY = {
    "pretrain": "base.pretrain.steps or base.pretrain.batch (a third of their product is asked for)",
    "train": "prepare.n_train",
    "validation": "prepare.n_validation",
    "test": "prepare.n_test",
}

Show = Callable[[Iterable[int], int], Iterator[int]]


class Worked(NamedTuple):
    """A problem in its benchmark's row schema, with the steps that solve it."""

    task: str
    row: dict[str, object]
    steps: list[Step]

    def answer(self, value: int) -> str:
        """The answer of an assistant that computed `value`."""
        return TASKS[self.task].answer(self.row, value)


def worked(task: str, split: str, n: int, seed: int, world: World, show: Show | None = None) -> list[Worked]:
    """n problems of a split in the benchmark's own row schema; equal arguments give equal bytes.

    A problem's bucket follows from the sha256 of its working, not from its names and words, and every bucket belongs to one
    split, so no computation of one split, of any task or seed, occurs in another. No working occurs twice among the n
    problems. `show` wraps the iteration over problem numbers, like a progress bar. Raises ParamError for an unknown task or
    split, and where the world has fewer than n different problems for this split.
    """
    if task not in TASKS or split not in BUCKETS:
        known = f"tasks are {', '.join(TASKS)}, splits {', '.join(BUCKETS)}"
        raise ParamError(f"no problems of {task!r}, split {split!r} can be generated: {known}")
    entropy = [seed, list(TASKS).index(task), list(BUCKETS).index(split)]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
    seen: set[str] = set()

    def draw() -> tuple[dict[str, object], list[Step]]:
        for _ in range(MAX_REDRAWS):
            row, steps = TASKS[task].draw(rng, world)
            text = working(steps)
            if text not in seen and bucket(text) in BUCKETS[split]:
                seen.add(text)
                return row, steps
        raise ParamError(
            f"{n} {split} problems of {task} are asked for, but after {len(seen)} different ones {MAX_REDRAWS} draws gave "
            f"no new one: lower {ASKED_BY[split]}, or raise world.changes, world.largest or world.largest_operand"
        )

    found = []
    for index in show(range(n), n) if show else range(n):
        row, steps = draw()
        found.append(Worked(task, _numbered(task, split, index, row), steps))
    return found


def bucket(text: str) -> int:
    """The bucket 0..99 of a working."""
    return number_of(text) % 100


def _numbered(task: str, split: str, index: int, row: dict[str, object]) -> dict[str, object]:
    match task:
        case "math500":
            return row | {"unique_id": f"tiny/{split}/{index:05}.json"}
        case "tooluse":
            return row | {"idx": index}
        case _:
            return row
