"""Word problems in the schema of GSM8K: a number of things is changed two to five times."""

import numpy as np

from qthink_core.synthetic.chains import Step, chain, working

N_STEPS = (2, 3, 4, 5)

PEOPLE = (
    *((name, "She") for name in ("Mia", "Anna", "Lena", "Zoe", "Ruth", "Ida")),
    *((name, "He") for name in ("Tom", "Ben", "Omar", "Leo", "Ivan", "Karl")),
)
THINGS = ("apples", "books", "coins", "stamps", "shells", "pens", "cards", "nuts")
GAINS = ("buys", "finds", "wins", "gets")
LOSSES = ("sells", "loses", "drops", "uses")


def draw(rng: np.random.Generator) -> tuple[dict[str, object], str, str]:
    """A problem as (row, thought, answer)."""
    name, pronoun = PEOPLE[int(rng.integers(len(PEOPLE)))]
    things = THINGS[int(rng.integers(len(THINGS)))]
    steps = chain(rng, N_STEPS[int(rng.integers(len(N_STEPS)))])
    told = " ".join(f"{pronoun} {_event(rng, step)}." for step in steps)
    question = f"{name} has {steps[0].left} {things}. {told} How many {things} does {name} have now?"
    left = steps[-1].result
    rationale = "\n".join(
        f"{name} then has {step.left} {step.sign} {step.operand} = <<{step}>>{step.result} {things}." for step in steps
    )
    row: dict[str, object] = {"question": question, "answer": f"{rationale}\n#### {left}"}
    return row, working(steps), f"The answer is {left}.\n#### {left}"


def _event(rng: np.random.Generator, step: Step) -> str:
    match step.sign:
        case "+":
            return f"{GAINS[int(rng.integers(len(GAINS)))]} {step.operand}"
        case "-":
            return f"{LOSSES[int(rng.integers(len(LOSSES)))]} {step.operand}"
        case "*":
            return "doubles them"
        case _:
            return "keeps half"
