"""Batches of answers as units of work: their plan, and what makes one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from qthink_core.answering import answer, asked, batches, unit
from qthink_core.completions import counts, writer
from qthink_core.executor import Made, Make
from qthink_core.models import Card, System, pick_device


class Batch(NamedTuple):
    """Prompts by problem id, the folder of the model that is asked, and its training seed (None: the base model)."""

    model: Path
    seed: int | None
    prompts: dict[str, Sequence[int]]


def plan(model: Path, card: Card, seed: int | None, problems: Sequence[Mapping[str, Any]], size: int) -> dict[str, Batch]:
    """The batches of at most `size` problems, by the name of their unit."""
    prompts = asked(card, problems)
    cut = enumerate(batches(prompts, size))
    return {unit(seed, number): Batch(model, seed, {one: prompts[one] for one in ids}) for number, ids in cut}


@contextmanager
def maker(load: Callable[[Path, torch.device, str], System], device: str, dtype: str, max_new_tokens: int) -> Iterator[Make]:
    """What makes the answers to a batch; one loaded system is kept, since the batches of a model follow each other."""
    place = pick_device(device)
    system_of = lru_cache(maxsize=1)(lambda folder: load(folder, place, dtype))

    def make(name: str, batch: Batch) -> Made:
        rows = answer(system_of(batch.model), batch.prompts, max_new_tokens, batch.seed)
        return {f"{name}.parquet": writer(rows)}, counts(rows)

    yield make
