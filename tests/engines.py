"""What tests ask engines for: answers and rollouts of prompts by problem id."""

from collections.abc import Mapping, Sequence

from qthink_core.artifacts.answers import Answer
from qthink_core.artifacts.conditions import TRAINED
from qthink_core.artifacts.rollouts import Rollout
from qthink_core.generation.engine import Engine
from qthink_core.generation.requests import Request, Sampling
from qthink_core.generation.units import answers_of, rollouts_of

Prompts = Mapping[str, Sequence[int]]


def requests(prompts: Prompts, n: int = 1, sampling: Sampling | None = None) -> list[Request]:
    """n completions of each prompt, in the order of the prompts."""
    return [Request(name, prompt, n, sampling) for name, prompt in prompts.items()]


def answer(engine: Engine, prompts: Prompts, seed: int | None = None, sampling: Sampling | None = None) -> list[Answer]:
    """The answers of a training seed's system, in one call."""
    asked = requests(prompts, 1, sampling and sampling.of_training(seed))
    return answers_of(asked, engine.generate(asked), seed, TRAINED)


def sample(engine: Engine, prompts: Prompts, G: int, sampling: Sampling) -> list[Rollout]:
    """G rollouts of each prompt, in one call."""
    asked = requests(prompts, G, sampling)
    return rollouts_of(asked, engine.generate(asked))
