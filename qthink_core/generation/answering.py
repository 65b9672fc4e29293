"""Answering: a system's completions of a set of questions, greedy or sampled, in batches of a fixed plan."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from qthink_core.artifacts.completions import BATCH, Answer
from qthink_core.artifacts.conditions import TRAINED
from qthink_core.generation.decoding import Choose, Sampling, answer_key, decode, greedy, sampler
from qthink_core.method.latent_steps import Context, latent_steps, read_prompts
from qthink_core.method.think import spoken
from qthink_core.models.loading import QThinkConfig, System


def batches(prompts: Mapping[str, Sequence[int]], size: int) -> list[list[str]]:
    """Problem ids by prompt length (then id), at most `size` together: the plan that a resumed run repeats."""
    order = sorted(prompts, key=lambda name: (len(prompts[name]), name))
    return [order[start : start + size] for start in range(0, len(order), size)]


def answer(
    system: System,
    prompts: Mapping[str, Sequence[int]],
    max_new_tokens: int,
    seed: int | None = None,
    sampling: Sampling | None = None,
) -> list[Answer]:
    """Completions of one batch: the prompt, the system's K latent steps, then tokens up to the limit.

    Greedy, but for a system that writes its thoughts where `sampling` is given (decision 19).
    """
    choose: Choose = greedy
    if sampling is not None and thinks(system):
        keys = [answer_key(sampling.seed, name, seed) for name in prompts]
        choose = sampler(keys, sampling.temperature, sampling.top_p, sampling.top_k, max_new_tokens)
    with torch.inference_mode():
        context = read_prompts(system.model, list(prompts.values()), system.tokenizer.pad_token_id)
        context, _ = latent_steps(system.model, system.head, context, system.K)
        return complete(system, prompts, context, max_new_tokens, seed, TRAINED, choose)


def thinks(system: System | QThinkConfig) -> bool:
    """Whether a system writes its thoughts before it answers: asked to, and without latent steps."""
    return system.thinking and not system.K


def complete(
    system: System,
    prompts: Mapping[str, Sequence[int]],
    context: Context,
    max_new_tokens: int,
    seed: int | None,
    condition: str,
    choose: Choose = greedy,
) -> list[Answer]:
    """The answers that follow from a context, greedily or as tokens are chosen; the context is used up."""
    names, tokenizer = list(prompts), system.tokenizer
    done = decode(system.model, context, choose, tokenizer.eos_token_id, max_new_tokens, names)
    texts = [spoken(tokenizer, prompts[name], row.tokens) for name, row in zip(names, done, strict=True)]
    return [
        Answer(name, seed, condition, row.tokens, text, row.finish)
        for name, row, text in zip(names, done, texts, strict=True)
    ]


def asked(system: System | QThinkConfig, problems: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[int]]:
    """The prompts that a system is asked with, by problem id."""
    column = "prompt_thinking" if system.thinking else "prompt_direct"
    return {row["id"]: row[column] for row in problems}


def unit(seed: int | None, number: int) -> str:
    """The name of a batch of answers: of one training seed, or of the base model."""
    return ("" if seed is None else f"seed-{seed}-") + f"{BATCH}{number:05d}"
