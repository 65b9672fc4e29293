"""Samplers: who makes the rollouts, as params name it. `hf` is transformers and our own loop, `vllm` is vLLM."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from qthink_core.artifacts.rollouts import Rollout
from qthink_core.generation import sampling, vllm_engine
from qthink_core.generation.decoding import request_seed
from qthink_core.generation.vllm_engine import Engine
from qthink_core.method.think import spoken
from qthink_core.models import loading


@contextlib.contextmanager
def opened(
    engine: str, folder: Path, device: torch.device, dtype: str, longest_prompt: int, max_new_tokens: int
) -> Iterator[Callable[..., list[Rollout]]]:
    """`sample_block` of the named engine with the model of a folder, for prompts of at most so many tokens."""
    tokenizer = loading.load_tokenizer(folder)
    if engine == "hf":
        yield partial(sampling.sample_block, loading.load_model(folder, device, dtype), tokenizer)
        return
    assert engine == "vllm", engine
    with vllm_engine.opened(folder, device, dtype, longest_prompt + max_new_tokens, embeddings=False) as loaded:
        yield partial(by_vllm, loaded, tokenizer)


def by_vllm(
    engine: Engine,
    tokenizer: Any,
    prompts: Mapping[str, Sequence[int]],
    *,
    G: int,
    seed: int,
    temperature: float,
    top_p: float,
    top_k: int,
    max_new_tokens: int,
) -> list[Rollout]:
    """G rollouts of each prompt, as `sampling.sample_block` returns them; a rollout's text depends on its own seed alone.

    The draws are vLLM's, so the texts are others than those of hf. Raises NumericError where a logit is not finite.
    """
    how = [
        {"n": G, "seed": request_seed(seed, name), "temperature": temperature, "top_p": top_p, "top_k": top_k}
        for name in prompts
    ]
    inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts.values()]
    done = vllm_engine.generate(engine, inputs, how, tokenizer.eos_token_id, max_new_tokens, list(prompts))
    return [
        Rollout(name, index, row.tokens, spoken(tokenizer, prompts[name], row.tokens), row.finish)
        for name, rows in zip(prompts, done, strict=True)
        for index, row in enumerate(rows)
    ]
