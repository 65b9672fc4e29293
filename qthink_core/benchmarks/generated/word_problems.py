"""Word problems in the schema of GSM8K: a number of things changes several times."""

import numpy as np

from qthink_core.benchmarks.generated.chains import Step, chain
from qthink_core.benchmarks.world import World

PEOPLE = ("Mia", "Anna", "Lena", "Zoe", "Ruth", "Ida", "Tom", "Ben", "Omar", "Leo", "Ivan", "Karl")
THINGS = ("apples", "books", "coins", "stamps", "shells", "pens", "cards", "nuts")


def draw(rng: np.random.Generator, world: World) -> tuple[dict[str, object], list[Step]]:
    """A problem as (row, steps)."""
    name, things = PEOPLE[int(rng.integers(len(PEOPLE)))], THINGS[int(rng.integers(len(THINGS)))]
    steps = chain(rng, world)
    events = "".join(f", {_event(step)}" for step in steps)
    question = f"{name} has {steps[0].left} {things}{events}. How many {things} does {name} have now?"
    rationale = "\n".join(
        f"{name} then has {step.left} {step.sign} {step.operand} = <<{step}>>{step.result} {things}." for step in steps
    )
    return {"question": question, "answer": f"{rationale}\n#### {steps[-1].result}"}, steps


def answer(row: dict[str, object], value: int) -> str:
    """The answer of an assistant that computed `value`."""
    return f"The answer is {value}.\n#### {value}"


def _event(step: Step) -> str:
    match step.sign:
        case "+":
            return f"buys {step.operand}"
        case "-":
            return f"sells {step.operand}"
        case "*":
            return "doubles them"
        case _:
            return "keeps half"
