"""Engines: who decodes, as params name it. `hf` is transformers and our own loop, `vllm` is vLLM."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from qthink_core import answering, models, sampling, vllm_engine
from qthink_core.completions import Answer
from qthink_core.models import System
from qthink_core.rollouts import Rollout

HF, VLLM = "hf", "vllm"


@contextlib.contextmanager
def sampler(
    engine: str, folder: Path, device: torch.device, dtype: str, prompts: Mapping[str, Sequence[int]], max_new_tokens: int
) -> Iterator[Callable[..., list[Rollout]]]:
    """`sample_block` of the named engine with the model of a folder, for blocks of these prompts."""
    tokenizer = models.load_tokenizer(folder)
    if engine == HF:
        yield partial(sampling.sample_block, models.load_model(folder, device, dtype), tokenizer)
        return
    assert engine == VLLM, engine
    with vllm_engine.opened(folder, device, dtype, longest(prompts) + max_new_tokens, embeddings=False) as opened:
        yield partial(vllm_engine.sample_block, opened, tokenizer)


@contextlib.contextmanager
def answerer(
    engine: str, folder: Path, system: System, problems: Sequence[Mapping[str, Any]], max_new_tokens: int
) -> Iterator[Callable[..., list[Answer]]]:
    """`answer` of the named engine for batches of these problems; `folder` is the one that the system was loaded from."""
    if engine == HF:
        yield answering.answer
        return
    assert engine == VLLM, engine
    dtype = str(system.model.dtype).removeprefix("torch.")
    tokens = longest(answering.asked(system, problems)) + system.K + max_new_tokens
    with vllm_engine.opened(folder, system.model.device, dtype, tokens, embeddings=system.K > 0) as opened:
        yield partial(vllm_engine.answer, opened)


def longest(prompts: Mapping[str, Sequence[int]]) -> int:
    """Tokens of the longest prompt."""
    return max(len(prompt) for prompt in prompts.values())
