"""A chain of arithmetic steps over small numbers, each step needing the result of the one before.

The three tasks of the tiny scale dress the same chains as stories, expressions and requests. Doubling and
halving stand between additions, so that no sum over the operands gives the result: a transformer of few layers
has to write the steps down. Numbers stay within 1..20, so that every step is one look-up in a table of some 300
entries, which 0.3 M parameters can hold.
"""

from typing import NamedTuple

import numpy as np

LARGEST = 20
LARGEST_OPERAND = 9


class Step(NamedTuple):
    """One line of the working: `left sign operand = result`."""

    left: int
    sign: str
    operand: int
    result: int

    def __str__(self) -> str:
        return f"{self.left}{self.sign}{self.operand}={self.result}"


def chain(rng: np.random.Generator, n_steps: int) -> list[Step]:
    """A chain of n_steps steps with all results in 1..20, no step undone by the next one."""
    left = int(rng.integers(2, LARGEST_OPERAND + 1))
    steps: list[Step] = []
    while len(steps) < n_steps:
        sign, operand = _SIGNS[int(rng.integers(len(_SIGNS)))], int(rng.integers(1, LARGEST_OPERAND + 1))
        if sign in "*/":
            operand = 2
        if sign == "/" and left % operand:
            continue
        result = {"+": left + operand, "-": left - operand, "*": left * operand, "/": left // operand}[sign]
        undone = bool(steps) and result == steps[-1].left
        if 1 <= result <= LARGEST and not undone:
            steps.append(Step(left, sign, operand, result))
            left = result
    return steps


def working(steps: list[Step]) -> str:
    """The steps as lines: the thought that a reasoning model should write."""
    return "\n".join(map(str, steps))


_SIGNS = "+-*/"
