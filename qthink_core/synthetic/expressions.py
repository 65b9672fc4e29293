"""Nested expressions and fractions in the schema of MATH-500, answered by an integer or by `\\frac{a}{b}`."""

from fractions import Fraction

import numpy as np

from qthink_core.synthetic.chains import Step, chain, working

N_STEPS = (2, 3, 4)
N_STEPS_ABOVE = (1, 2)
N_STEPS_BELOW = (1, 2)
LARGEST_IN_FRACTION = 12


def draw(rng: np.random.Generator) -> tuple[dict[str, object], str, str]:
    """A problem as (row without its unique_id, thought, answer)."""
    expression, thought, value = _fraction(rng) if int(rng.integers(2)) else _integer(rng)
    lines = thought.split("\n")
    row: dict[str, object] = {
        "problem": f"Compute ${expression}$.",
        "solution": "".join(f"${line}$. " for line in lines) + f"So the answer is $\\boxed{{{value}}}$.",
        "answer": value,
        "subject": "Prealgebra",
        "level": min(len(lines) - 2, 5),
    }
    return row, thought, f"The answer is $\\boxed{{{value}}}$."


def _integer(rng: np.random.Generator) -> tuple[str, str, str]:
    steps = chain(rng, N_STEPS[int(rng.integers(len(N_STEPS)))])
    return _nested(steps), working(steps), str(steps[-1].result)


def _fraction(rng: np.random.Generator) -> tuple[str, str, str]:
    """A fraction of two expressions, both results in 2..12, as (expression, thought, value in lowest terms)."""
    above = _bounded(rng, N_STEPS_ABOVE)
    below = _bounded(rng, N_STEPS_BELOW)
    top, bottom = above[-1].result, below[-1].result
    lowest = Fraction(top, bottom)
    whole = lowest.denominator == 1
    value = str(lowest) if whole else f"\\frac{{{lowest.numerator}}}{{{lowest.denominator}}}"
    thought = f"{working(above)}\n{working(below)}\n{top}/{bottom}={lowest}"
    return f"\\frac{{{_nested(above)}}}{{{_nested(below)}}}", thought, value


def _bounded(rng: np.random.Generator, lengths: tuple[int, ...]) -> list[Step]:
    while True:
        steps = chain(rng, lengths[int(rng.integers(len(lengths)))])
        if 2 <= steps[-1].result <= LARGEST_IN_FRACTION:
            return steps


def _nested(steps: list[Step]) -> str:
    expression = str(steps[0].left)
    for i, step in enumerate(steps):
        inner = f"({expression})" if i else expression
        expression = f"{inner}{_LATEX.get(step.sign, step.sign)}{step.operand}"
    return expression


_LATEX = {"*": "\\cdot ", "/": "\\div "}
