"""Growth: how the work of `sample`, `extract`, `train` and `evaluate` grows with the number of problems N.

The functions are those that the stages call, on a model of random weights and without files. All completions are as long as
they may be and all thoughts have one length, so that tokens and bytes are exact.
"""

from collections.abc import Callable, Iterator, Sequence
from math import log
from typing import Any, NamedTuple

import numpy as np

from qthink_core.benchmarking.answering import system_of
from qthink_core.benchmarking.counting import counted
from qthink_core.benchmarking.training import Step
from qthink_core.benchmarking.workload import NoText, Sizes, model_of, problems_of, rows_of
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.generation.requests import Request, Sampling
from qthink_core.method.hidden_states import read_positions
from qthink_core.models.loading import System
from qthink_core.planning.cost import Shape

SAMPLING = Sampling(seed=0, temperature=1.0, top_p=1.0, top_k=0)
STAGES = ("sample", "extract", "train", "evaluate")


class Endless(NoText):
    """A tokenizer without an end token."""

    eos_token_id = -1


class Grown(NamedTuple):
    """What a stage did for N problems or questions.

    Seconds of the processor, tokens that passed through the model's layers, tokens written, and bytes of hidden states.
    """

    stage: str
    N: int
    seconds: float
    tokens: int
    written: int
    disk: int


class Stages:
    """The work of each stage for `sizes.problems` problems; a block of `sample` has `micro_batch` of them.

    Each function returns the tokens that it wrote and the bytes for the disk.
    """

    def __init__(self, shape: Shape, sizes: Sizes) -> None:
        self.shape, self.sizes = shape, sizes._replace(varied=False)
        self.problems = problems_of(shape, self.sizes)
        self.base = System(model_of(shape, sizes.seed, sizes.on), Endless(), None, 0, True)
        self.latent = system_of(shape, sizes)._replace(tokenizer=Endless())
        self.step = Step(shape, self.sizes)

    def sample(self) -> tuple[int, int]:
        """G rollouts of each problem, in blocks."""
        requests = [Request(f"p{n:05d}", one.prompt, self.sizes.G, SAMPLING) for n, one in enumerate(self.problems)]
        return self._written(HFEngine(self.base, self.sizes.thought), requests, self.sizes.micro_batch), 0

    def extract(self) -> tuple[int, int]:
        """The states of each rollout."""
        rows = rows_of(self.problems, self.sizes.K)
        states = read_positions(self.base.model, rows, self.sizes.K, self.sizes.batch_tokens, "float32")
        return 0, states.nbytes

    def train(self) -> tuple[int, int]:
        """One epoch of a student's gradients."""
        self.step.own()
        return 0, 0

    def evaluate(self) -> tuple[int, int]:
        """An answer with latent steps to a question for each problem, in batches."""
        requests = [Request(f"q{n:05d}", one.prompt) for n, one in enumerate(self.problems)]
        return self._written(HFEngine(self.latent, self.sizes.max_new_tokens), requests, self.sizes.questions), 0

    def _written(self, engine: HFEngine, requests: Sequence[Request], batch: int) -> int:
        blocks = [engine.generate(requests[start : start + batch]) for start in range(0, len(requests), batch)]
        return sum(len(one.tokens) for block in blocks for answers in block for one in answers)

    def measured(self, stage: str) -> Grown:
        """What a stage does: a run that is counted, and one that is timed."""
        compute: Callable[[], tuple[int, int]] = getattr(self, stage)
        model: Any = {"train": self.step.student.model, "evaluate": self.latent.model}.get(stage, self.base.model)
        with counted(model) as work:
            written, disk = compute()
        return Grown(stage, self.sizes.problems, self.sizes.on.seconds(compute), work.tokens, written, disk)


def curve(shape: Shape, sizes: Sizes, numbers: Sequence[int]) -> Iterator[Grown]:
    """Every stage at every number of problems."""
    for N in numbers:
        stages = Stages(shape, sizes._replace(problems=N))
        for stage in STAGES:
            yield stages.measured(stage)


def exponent(rows: Sequence[Grown]) -> float:
    """The power of N that fits the seconds of a stage best: the slope of a line through their logarithms."""
    return float(np.polyfit([log(one.N) for one in rows], [log(one.seconds) for one in rows], 1)[0])


def by_stage(rows: Sequence[Grown]) -> dict[str, list[Grown]]:
    """The rows of each stage, from the smallest N to the largest."""
    return {stage: sorted((one for one in rows if one.stage == stage), key=lambda one: one.N) for stage in STAGES}


def as_json(rows: Sequence[Grown]) -> list[dict[str, Any]]:
    """The rows as objects of JSON, each with the exponent of its stage."""
    fits = {stage: exponent(found) for stage, found in by_stage(rows).items()}
    return [one._asdict() | {"exponent": fits[one.stage]} for one in rows]


def as_text(rows: Sequence[Grown]) -> str:
    """A table in Markdown: for each stage and N the processor seconds and, behind them, the tokens through the layers."""
    numbers = sorted({one.N for one in rows})
    lines = [
        f"| stage | {' | '.join(f'N = {N}' for N in numbers)} | seconds grow with |",
        "| --- " * (len(numbers) + 2) + "|",
    ]
    for stage, found in by_stage(rows).items():
        cells = [f"{one.seconds:.2f} s, {one.tokens:,} tokens" for one in found]
        lines.append(f"| {stage} | {' | '.join(cells)} | N^{exponent(found):.2f} |")
    return "\n".join(lines)
