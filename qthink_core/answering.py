"""Answering: a system's greedy completions of a set of questions, in batches of a fixed plan."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from qthink_core.artifacts import Work
from qthink_core.completions import Answer, counts, writer
from qthink_core.decoding import decode, greedy
from qthink_core.latent_steps import latent_steps, read_prompts
from qthink_core.models import System
from qthink_core.rollouts import spoken


def batches(prompts: Mapping[str, Sequence[int]], size: int) -> list[list[str]]:
    """Problem ids by prompt length (then id), at most `size` together: the plan that a resumed run repeats."""
    order = sorted(prompts, key=lambda name: (len(prompts[name]), name))
    return [order[start : start + size] for start in range(0, len(order), size)]


def answer(system: System, prompts: Mapping[str, Sequence[int]], max_new_tokens: int) -> list[Answer]:
    """Greedy completions of one batch: the prompt, the system's K latent steps, then tokens up to the limit."""
    names = list(prompts)
    tokenizer: Any = system.tokenizer
    with torch.inference_mode():
        context = read_prompts(system.model, [prompts[name] for name in names], tokenizer.pad_token_id)
        context, _ = latent_steps(system.model, system.head, context, system.K)
        done = decode(system.model, context, greedy, tokenizer.eos_token_id, max_new_tokens, names)
    texts = [spoken(tokenizer, prompts[name], row.tokens) for name, row in zip(names, done, strict=True)]
    return [Answer(name, row.tokens, text, row.finish) for name, row, text in zip(names, done, texts, strict=True)]


def answer_all(
    system: System,
    problems: Sequence[Mapping[str, Any]],
    *,
    batch: int,
    max_new_tokens: int,
    work: Work,
    show: Callable[[list[str], int], Iterable[str]],
) -> list[str]:
    """Commits a system's answers to all problems, a unit for each batch, and returns the units in order."""
    column = "prompt_thinking" if system.thinking else "prompt_direct"
    prompts = {row["id"]: row[column] for row in problems}
    plan = {f"batch-{number:05d}": ids for number, ids in enumerate(batches(prompts, batch))}
    missing = [name for name in plan if not work.done(name)]
    for name in show(missing, len(missing)):
        rows = answer(system, {one: prompts[one] for one in plan[name]}, max_new_tokens)
        work.commit(name, {f"{name}.parquet": writer(rows)}, counts(rows))
    return list(plan)
