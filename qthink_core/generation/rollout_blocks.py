"""Blocks of rollouts as units of work: their plan, and what makes one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qthink_core.artifacts.rollouts import blocks, counts, writer
from qthink_core.generation.samplers import opened
from qthink_core.method.think import marks, thoughts
from qthink_core.models.loading import load_tokenizer, pick_device
from qthink_core.pipeline.executor import Made, Make


def plan(prompts: Mapping[str, Sequence[int]], size: int) -> dict[str, dict[str, Sequence[int]]]:
    """The prompts of each block of at most `size` problems, by the name of its unit."""
    cut = enumerate(blocks(list(prompts), size))
    return {f"block-{number:05d}": {one: prompts[one] for one in ids} for number, ids in cut}


def longest(planned: Mapping[str, Mapping[str, Sequence[int]]]) -> int:
    """The tokens of the longest prompt of a plan."""
    return max((len(prompt) for prompts in planned.values() for prompt in prompts.values()), default=0)


@contextmanager
def maker(
    base: Path, device: str, dtype: str, engine: str, longest_prompt: int, settings: Mapping[str, Any]
) -> Iterator[Make]:
    """What makes a block out of its prompts, with the model in `base` and the settings of `sample_block`."""
    delimiters = marks(load_tokenizer(base))
    with opened(engine, base, pick_device(device), dtype, longest_prompt, settings["max_new_tokens"]) as sample_block:

        def make(block: str, prompts: Mapping[str, Sequence[int]]) -> Made:
            rows = sample_block(prompts, **settings)
            return {f"{block}.parquet": writer(rows)}, counts(rows) | {"thoughts": thoughts(rows, prompts, delimiters)}

        yield make
