"""Answering: a system's greedy completions of a set of questions, in batches of a fixed plan."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from qthink_core.completions import BATCH, TRAINED, Answer
from qthink_core.decoding import decode, greedy
from qthink_core.latent_steps import Context, latent_steps, read_prompts
from qthink_core.models import Card, System
from qthink_core.rollouts import spoken


def batches(prompts: Mapping[str, Sequence[int]], size: int) -> list[list[str]]:
    """Problem ids by prompt length (then id), at most `size` together: the plan that a resumed run repeats."""
    order = sorted(prompts, key=lambda name: (len(prompts[name]), name))
    return [order[start : start + size] for start in range(0, len(order), size)]


def answer(
    system: System, prompts: Mapping[str, Sequence[int]], max_new_tokens: int, seed: int | None = None
) -> list[Answer]:
    """Greedy completions of one batch: the prompt, the system's K latent steps, then tokens up to the limit."""
    with torch.inference_mode():
        context = read_prompts(system.model, list(prompts.values()), system.tokenizer.pad_token_id)
        context, _ = latent_steps(system.model, system.head, context, system.K)
        return complete(system, prompts, context, max_new_tokens, seed, TRAINED)


def complete(
    system: System,
    prompts: Mapping[str, Sequence[int]],
    context: Context,
    max_new_tokens: int,
    seed: int | None,
    condition: str,
) -> list[Answer]:
    """The answers that follow from a context, greedily; the context is used up."""
    names, tokenizer = list(prompts), system.tokenizer
    done = decode(system.model, context, greedy, tokenizer.eos_token_id, max_new_tokens, names)
    texts = [spoken(tokenizer, prompts[name], row.tokens) for name, row in zip(names, done, strict=True)]
    return [
        Answer(name, seed, condition, row.tokens, text, row.finish)
        for name, row, text in zip(names, done, texts, strict=True)
    ]


def asked(system: System | Card, problems: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[int]]:
    """The prompts that a system is asked with, by problem id."""
    column = "prompt_thinking" if system.thinking else "prompt_direct"
    return {row["id"]: row[column] for row in problems}


def unit(seed: int | None, number: int) -> str:
    """The name of a batch of answers: of one training seed, or of the base model."""
    return ("" if seed is None else f"seed-{seed}-") + f"{BATCH}{number:05d}"
