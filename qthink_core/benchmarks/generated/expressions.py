"""Nested expressions in the schema of MATH-500, answered by an integer in a box."""

import numpy as np

from qthink_core.benchmarks.generated.chains import Step, chain
from qthink_core.benchmarks.world import World

_LATEX = {"*": "\\cdot ", "/": "\\div "}
HARDEST = 5  # the levels of MATH-500


def draw(rng: np.random.Generator, world: World) -> tuple[dict[str, object], list[Step]]:
    """A problem as (row without its unique_id, steps)."""
    steps = chain(rng, world)
    value = steps[-1].result
    row: dict[str, object] = {
        "problem": f"Compute ${_nested(steps)}$.",
        "solution": "".join(f"${step}$. " for step in steps) + f"So the answer is $\\boxed{{{value}}}$.",
        "answer": str(value),
        "subject": "Prealgebra",
        "level": min(len(steps), HARDEST),
    }
    return row, steps


def answer(row: dict[str, object], value: int) -> str:
    """The answer of an assistant that computed `value`."""
    return f"The answer is $\\boxed{{{value}}}$."


def _nested(steps: list[Step]) -> str:
    """The expression `((9\\cdot 2)-6)`: every change is one token together with its closing bracket."""
    changes = "".join(f"{_LATEX.get(step.sign, step.sign)}{step.operand})" for step in steps)
    return f"{'(' * len(steps)}{steps[0].left}{changes}"
