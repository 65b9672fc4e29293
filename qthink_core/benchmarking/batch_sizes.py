"""The choice of `extract.batch_tokens`: the time and memory of extraction with several values on this device."""

import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from qthink_core.benchmarking import extraction
from qthink_core.benchmarking.counting import tokens_needed
from qthink_core.benchmarking.workload import Sizes, model_of, problems_of, rows_of
from qthink_core.errors import ParamError
from qthink_core.method.hidden_states import read_positions
from qthink_core.models.base_params import Base
from qthink_core.planning import shapes
from qthink_core.planning.cost import Shape
from qthink_core.planning.settings import checked_with

# A smaller value takes less memory, so it is better if it is at most this share slower than the fastest.
AS_FAST = 0.03


class Device(NamedTuple):
    """Where a model computes: `cpu` or `cuda`, its dtype, and the threads of the processor."""

    name: str = "cpu"
    dtype: str = "float32"
    threads: int = 1


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


def of_scale(root: Path, scale: str) -> tuple[Shape, Device]:
    """The shape of a scale's base model and where it computes; raises ParamError at a fault of the parameters."""
    tree = checked_with(root, scale, ())
    device = Device(tree["device"], tree["dtype"], tree["cpu_threads"])
    if device.name == "cuda" and not torch.cuda.is_available():
        raise ParamError(f"params/{scale}.yaml has device: cuda, and this machine has no GPU: measure where the scale runs")
    return shapes.of_base(Base.model_validate(tree["base"]), None), device


def choose(
    name: str, shape: Shape, sizes: Sizes, values: Sequence[int], rounds: int, memory: bool, device: Device
) -> Choice:
    """All values in turn in each round, after a run of each that does not count."""
    torch.set_num_threads(device.threads)
    model: Any = model_of(shape, sizes.seed, device.dtype, lively=False)
    model.to(device.name)
    rows = rows_of(problems_of(shape, sizes), sizes.K)
    times: dict[int, list[float]] = {value: [] for value in values}
    for _ in range(rounds + 1):
        for value in values:
            begun = _now(device)
            read_positions(model, rows, sizes.K, value, "float32")
            times[value].append(_now(device) - begun)
    medians = {value: statistics.median(found[1:]) for value, found in times.items()}
    needed = tokens_needed(rows)
    extra = {
        value: _extra_MiB(model, shape, sizes._replace(batch_tokens=value), device) if memory else None for value in values
    }
    return Choice(name, device.name, [Tried(n, s, needed / s, extra[n]) for n, s in medians.items()])


def _now(device: Device) -> float:
    if device.name == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _extra_MiB(model: Any, shape: Shape, sizes: Sizes, device: Device) -> float:
    if device.name == "cpu":
        return extraction.extra_bytes("own", shape, sizes) / (1 << 20)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    read_positions(model, rows_of(problems_of(shape, sizes), sizes.K), sizes.K, sizes.batch_tokens, "float32")
    return (torch.cuda.max_memory_allocated() - before) / (1 << 20)


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
