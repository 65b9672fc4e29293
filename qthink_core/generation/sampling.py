"""Sampling with Hugging Face models: the prompt of a problem is read once and shared by its G rollouts."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from qthink_core.artifacts.rollouts import Rollout
from qthink_core.generation.decoding import decode, rollout_key, sampler
from qthink_core.method.latent_steps import read_prompts
from qthink_core.method.think import spoken


def sample_block(
    model: PreTrainedModel,
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
    """G rollouts of each prompt, a function of the block's prompts, the settings and the seed."""
    ids = list(prompts)
    with torch.inference_mode():
        context = read_prompts(model, [prompts[name] for name in ids], tokenizer.pad_token_id)
    keys = [rollout_key(seed, name, index) for name in ids for index in range(G)]
    choose = sampler(keys, temperature, top_p, top_k, max_new_tokens)
    names = [(name, index) for name in ids for index in range(G)]
    called = [f"rollout {index} of {name}" for name, index in names]
    done = decode(model, context, choose, tokenizer.eos_token_id, max_new_tokens, called, each=G)
    texts = [spoken(tokenizer, prompts[name], row.tokens) for (name, _), row in zip(names, done, strict=True)]
    return [
        Rollout(name, index, row.tokens, text, row.finish)
        for (name, index), row, text in zip(names, done, texts, strict=True)
    ]
