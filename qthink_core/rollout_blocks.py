"""Blocks of rollouts as units of work: their plan, and what makes one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qthink_core.executor import Made, Make
from qthink_core.models import load_model, load_tokenizer, pick_device
from qthink_core.rollouts import blocks, counts, writer
from qthink_core.sampling import sample_block


def plan(prompts: Mapping[str, Sequence[int]], size: int) -> dict[str, dict[str, Sequence[int]]]:
    """The prompts of each block of at most `size` problems, by the name of its unit."""
    cut = enumerate(blocks(list(prompts), size))
    return {f"block-{number:05d}": {one: prompts[one] for one in ids} for number, ids in cut}


@contextmanager
def maker(base: Path, device: str, dtype: str, settings: Mapping[str, Any]) -> Iterator[Make]:
    """What makes a block out of its prompts, with the model in `base` and the settings of `sample_block`."""
    model, tokenizer = load_model(base, pick_device(device), dtype), load_tokenizer(base)

    def make(block: str, prompts: Mapping[str, Sequence[int]]) -> Made:
        rows = sample_block(model, tokenizer, prompts, **settings)
        return {f"{block}.parquet": writer(rows)}, counts(rows)

    yield make
