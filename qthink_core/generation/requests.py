"""Requests to an engine, and the random numbers that their completions are drawn with."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from qthink_core.artifacts.completions import LENGTH, STOP, Completion
from qthink_core.artifacts.files import number_of
from qthink_core.method.think import spoken


class Sampling(NamedTuple):
    """How tokens are drawn: temperature first, then top-k (0 keeps all), then top-p over the rest.

    The draws of completion i of a problem depend on (seed, problem id, first + i) only, so the number of workers and the
    size of batches do not change them (decision 16).
    """

    seed: int
    temperature: float
    top_p: float
    top_k: int
    first: int = 0

    def of_training(self, seed: int | None) -> "Sampling":
        """The same sampling with other draws for each training seed; None stands for the base model (decision 19)."""
        return self._replace(first=0 if seed is None else seed + 1)

    def key(self, problem_id: str, index: int) -> list[int]:
        """The key of a completion's stream of uniform numbers, for the engine hf."""
        return [self.seed, number_of(problem_id), self.first + index]

    def request_seed(self, problem_id: str) -> int:
        """The 62-bit seed of a request to vLLM, which samples completion i with this seed + i."""
        state = np.random.SeedSequence([self.seed, number_of(problem_id)]).generate_state(1, np.uint64)
        return int(state[0] >> np.uint64(2)) + self.first


class Request(NamedTuple):
    """A prompt as token ids, and the number n of its completions; they are greedy when `sampling` is None."""

    problem_id: str
    prompt: Sequence[int]
    n: int = 1
    sampling: Sampling | None = None


def stream(key: Sequence[int]) -> np.random.Generator:
    """The random generator of a key, with the same numbers on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def completed(request: Request, tokens: list[int], tokenizer: Any, ends: Collection[int]) -> Completion:
    """The completion of a request from its tokens; `finish` is `stop` if the last one is in `ends`, else `length`."""
    finish = STOP if tokens[-1] in ends else LENGTH
    return Completion(tokens, spoken(tokenizer, request.prompt, tokens), finish)
