"""Batches of answers as units of work: their plan, and what makes one."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from qthink_core.artifacts import seconds
from qthink_core.artifacts.completions import Answer, counts, writer
from qthink_core.generation.answerers import opened
from qthink_core.generation.answering import asked, batches, unit
from qthink_core.generation.decoding import Sampling
from qthink_core.models.loading import QThinkConfig, System, pick_device
from qthink_core.pipeline.executor import Made, Make


class Batch(NamedTuple):
    """Prompts by problem id, the folder of the model that is asked, and its training seed (None: the base model)."""

    model: Path
    seed: int | None
    prompts: dict[str, Sequence[int]]


def plan(
    model: Path, config: QThinkConfig, seed: int | None, problems: Sequence[Mapping[str, Any]], size: int
) -> dict[str, Batch]:
    """The batches of at most `size` problems, by the name of their unit."""
    prompts = asked(config, problems)
    cut = enumerate(batches(prompts, size))
    return {unit(seed, number): Batch(model, seed, {one: prompts[one] for one in ids}) for number, ids in cut}


def longest(planned: Mapping[str, Batch]) -> int:
    """The tokens of the longest prompt of a plan."""
    return max((len(prompt) for batch in planned.values() for prompt in batch.prompts.values()), default=0)


def named(device: torch.device) -> str:
    """The device in words: `cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def maker(
    load: Callable[[Path, torch.device, str], System],
    device: str,
    dtype: str,
    engine: str,
    longest_prompt: int,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    log: Path | None = None,
) -> Iterator[Make]:
    """What makes the answers to a batch; one system with its engine is kept, as the batches of a model follow each other.

    The seconds of a batch, without the loading of its model, are recorded in the folder `log`.
    """
    place = pick_device(device)
    at_hand: dict[Path, tuple[System, Callable[..., list[Answer]]]] = {}

    with ExitStack() as held:

        def make(name: str, batch: Batch) -> Made:
            if batch.model not in at_hand:
                held.close()
                at_hand.clear()
                system = load(batch.model, place, dtype)
                answer = held.enter_context(opened(engine, batch.model, system, longest_prompt, max_new_tokens, sampling))
                at_hand[batch.model] = system, answer
            system, answer = at_hand[batch.model]
            started = time.perf_counter()
            rows = answer(system, batch.prompts, max_new_tokens, batch.seed)
            if log is not None:
                seconds.record(log, name, len(rows), time.perf_counter() - started, named(place))
            return {f"{name}.parquet": writer(rows)}, counts(rows)

        yield make
