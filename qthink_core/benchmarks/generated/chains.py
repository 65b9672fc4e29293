"""A chain of arithmetic steps over small numbers, in which each step needs the result of the one before.

The three tasks of the tiny scale present the same chains as stories, expressions and requests. Doubling and halving
occur between additions, so that no sum of the operands gives the result. One change of the running value is one token of the
question, one token of the thought and one pass of the model (docs/world.md explains why this matters).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from qthink_core.benchmarks.world import World

_SIGNS = "+-*/"
_BORROW = 10  # a subtraction from 10 or more to less than 10 borrows


class Step(NamedTuple):
    """One step of the working: `left sign operand = result`."""

    left: int
    sign: str
    operand: int
    result: int

    def __str__(self) -> str:
        return f"{self.left}{self.sign}{self.operand}={self.result}"


def apply(left: int, sign: str, operand: int) -> int:
    """The result of a step; a half is rounded down."""
    return {"+": left + operand, "-": left - operand, "*": left * operand, "/": left // operand}[sign]


def chain(rng: np.random.Generator, world: World) -> list[Step]:
    """A chain from a start value of 2..largest with all results in 1..largest, in which no step undoes the one before."""
    left = int(rng.integers(2, world.largest + 1))
    steps: list[Step] = []
    while len(steps) < world.changes:
        sign, operand = _SIGNS[int(rng.integers(len(_SIGNS)))], int(rng.integers(1, world.largest_operand + 1))
        if sign in "*/":
            operand = 2
        if sign == "/" and left % operand:
            continue
        result = apply(left, sign, operand)
        undone = bool(steps) and result == steps[-1].left
        if 1 <= result <= world.largest and not undone:
            steps.append(Step(left, sign, operand, result))
            left = result
    return steps


def values(steps: Sequence[Step]) -> list[int]:
    """The running values: the start value, then every result."""
    return [steps[0].left, *(step.result for step in steps)]


def slipped(steps: Sequence[Step], rng: np.random.Generator, share: float, world: World) -> list[int]:
    """The running values of a solver that forgets a `share` of the borrows and continues from the wrong value.

    A slip makes a value too large by one. Values that leave 1..largest as a result are set to the nearer limit.
    """
    found = [steps[0].left]
    for step in steps:
        value = apply(found[-1], step.sign, step.operand)
        borrows = step.sign == "-" and found[-1] >= _BORROW > value
        slip = borrows and bool(rng.random() < share)
        found.append(min(max(value + slip, 1), world.largest))
    return found


def thought(running: Sequence[int], opening: str | None) -> str:
    """The running values as a reasoning model writes them, one token each, after the opening word if there is one."""
    words = [opening] if opening else []
    return "".join(f" {word}" for word in [*words, *map(str, running)])


def working(steps: Sequence[Step]) -> str:
    """The steps in full, which identify a problem and decide its split."""
    return ";".join(map(str, steps))
