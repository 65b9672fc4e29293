"""The choice of `extract.batch_tokens`: the time and memory of extraction with several values on this device."""

import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from qthink_core.benchmarking import extraction
from qthink_core.benchmarking.counting import tokens_needed
from qthink_core.benchmarking.workload import Sizes, model_of, problems_of, rows_of
from qthink_core.method.hidden_states import read_positions
from qthink_core.planning.cost import Shape

# A smaller value takes less memory, so it is better if it is at most this share slower than the fastest.
AS_FAST = 0.03


class Tried(NamedTuple):
    """A value, the median seconds of a run, the tokens that it read in one, and its extra memory where that was measured.

    Seconds are those of the processor, or on a GPU those of the clock.
    """

    batch_tokens: int
    seconds: float
    tokens_per_second: float
    extra_MiB: float | None


class Choice(NamedTuple):
    """The values that were tried for a model."""

    model: str
    device: str
    tried: list[Tried]

    @property
    def recommended(self) -> int:
        """The smallest value that is about as fast as the fastest."""
        fastest = min(one.seconds for one in self.tried)
        return min(one.batch_tokens for one in self.tried if one.seconds <= (1 + AS_FAST) * fastest)


def choose(name: str, shape: Shape, sizes: Sizes, values: Sequence[int], rounds: int, memory: bool) -> Choice:
    """All values in turn in each round, after a run of each that does not count."""
    torch.set_num_threads(sizes.on.threads)
    model: Any = model_of(shape, sizes.seed, sizes.on, lively=False)
    rows = rows_of(problems_of(shape, sizes), sizes.K)
    times: dict[int, list[float]] = {value: [] for value in values}
    for _ in range(rounds + 1):
        for value in values:
            times[value].append(sizes.on.seconds(partial(read_positions, model, rows, sizes.K, value, "float32")))
    medians = {value: statistics.median(found[1:]) for value, found in times.items()}
    needed = tokens_needed(rows)

    def extra_MiB(value: int) -> float | None:
        return extraction.extra_bytes("own", shape, sizes._replace(batch_tokens=value)) / (1 << 20) if memory else None

    extra = {value: extra_MiB(value) for value in values}
    return Choice(name, sizes.on.named(), [Tried(n, s, needed / s, extra[n]) for n, s in medians.items()])


def as_json(choices: Sequence[Choice]) -> list[dict[str, Any]]:
    """The choices as objects of JSON."""
    return [
        {"model": one.model, "device": one.device, "recommended": one.recommended, "tried": [t._asdict() for t in one.tried]}
        for one in choices
    ]


def as_text(choices: Sequence[Choice]) -> str:
    """A table in Markdown, and the recommended value of each model."""
    return "\n".join(_lines(choices))


def _lines(choices: Sequence[Choice]) -> Iterator[str]:
    yield "| model | device | batch_tokens | seconds | tokens/s | extra memory |"
    yield "| --- " * 6 + "|"
    for one in choices:
        for tried in one.tried:
            memory = "" if tried.extra_MiB is None else f"{tried.extra_MiB:,.0f} MiB"
            cells = f"{tried.batch_tokens:,} | {tried.seconds:.3g} | {tried.tokens_per_second:,.0f} | {memory}"
            yield f"| {one.model} | {one.device} | {cells} |"
    yield ""
    for one in choices:
        yield f"{one.model} on {one.device}: extract.batch_tokens {one.recommended}"
