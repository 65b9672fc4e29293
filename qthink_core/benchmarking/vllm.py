"""The engine vllm: how often a prompt is read, how full the engine is, and its time against blocks of one problem and hf."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from qthink_core.artifacts.completions import Completion
from qthink_core.benchmarking.answering import unequal
from qthink_core.benchmarking.measured import Measured
from qthink_core.benchmarking.timing import paired
from qthink_core.benchmarking.workload import EOS, PAD, Sizes, head_of, model_of, prompts_of
from qthink_core.generation import engine, units
from qthink_core.generation.requests import Request, Sampling
from qthink_core.generation.vllm_engine import VLLMEngine
from qthink_core.method import projection_head
from qthink_core.models import loading
from qthink_core.models.loading import QThinkConfig
from qthink_core.planning.cost import Shape

# Random text at this temperature has many lengths; the other limits of `rollout` would only cut the random distribution.
SAMPLING = Sampling(seed=0, temperature=1.0, top_p=1.0, top_k=0)


@dataclass
class Scheduled:
    """What vLLM's scheduler gave to the model: steps, tokens to compute, and sequences, summed over the steps."""

    steps: int = 0
    tokens: int = 0
    sequences: int = 0


def folder_of(shape: Shape, sizes: Sizes, folder: Path) -> Path:
    """A latent system of random weights with a tokenizer of words without meaning, saved in `folder`, which is returned."""
    model_of(shape, sizes.seed).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(shape.vocabulary)}, "w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token=f"w{EOS}", pad_token=f"w{PAD}").save_pretrained(folder)
    (folder / loading.HEAD).write_bytes(projection_head.to_bytes(head_of(shape, sizes.seed)))
    (folder / loading.CONFIG).write_text(json.dumps({"K": sizes.K, "thinking": False}))
    return folder


@contextmanager
def scheduled(asked: VLLMEngine) -> Iterator[Scheduled]:
    """Counts what the scheduler of an engine gives to the model in the context."""
    core, found = asked.llm.llm_engine.engine_core.engine_core, Scheduled()
    schedule = core.scheduler.schedule

    def counting(*given: Any, **named: Any) -> Any:
        step = schedule(*given, **named)
        found.steps += step.total_num_scheduled_tokens > 0
        found.tokens += step.total_num_scheduled_tokens
        found.sequences += len(step.num_scheduled_tokens)
        return step

    core.scheduler.schedule = counting
    try:
        yield found
    finally:
        core.scheduler.schedule = schedule


def sampled(asked: VLLMEngine, base: Path, prompts: dict[str, list[int]], block: int, G: int) -> list[list[Completion]]:
    """G rollouts of each prompt, by problem, in blocks as `sample` plans them, with nothing kept from an earlier call."""
    asked.llm.reset_prefix_cache()
    plan = units.plan_rollouts(base, prompts, block, G, SAMPLING)
    return [rows for unit in plan.values() for rows in asked.generate(unit.requests)]


def rollouts(name: str, shape: Shape, sizes: Sizes, rounds: int) -> Measured:
    """The row of a shape: the rollouts of all problems in one block, against blocks of one problem."""
    prompts = prompts_of(shape, sizes, sizes.problems)
    with TemporaryDirectory() as made:
        base, longest = folder_of(shape, sizes, Path(made)), max(map(len, prompts.values()))
        with _opened("vllm", base, 0, longest, sizes) as asked:
            with scheduled(asked) as naively:
                expected = sampled(asked, base, prompts, 1, sizes.G)
            with scheduled(asked) as work:
                found = sampled(asked, base, prompts, len(prompts), sizes.G)
            room = asked.llm.llm_engine.vllm_config.scheduler_config.max_num_seqs
            ratio = paired(
                lambda: sampled(asked, base, prompts, 1, sizes.G),
                lambda: sampled(asked, base, prompts, len(prompts), sizes.G),
                rounds,
                sizes.on,
            )
    return Measured(
        f"rollouts by vLLM, blocks of {len(prompts)}",
        name,
        "blocks of one problem",
        ratio,
        unequal(_tokens(found), _tokens(expected)),
        {"problems": len(prompts), "G": sizes.G} | _counts(found, list(prompts.values()), work, room, naively),
    )


def answers(name: str, shape: Shape, sizes: Sizes, K: int, rounds: int) -> Measured:
    """The row of a shape: greedy answers to all questions after K latent steps, against the engine hf."""
    prompts = prompts_of(shape, sizes, sizes.questions)
    requests = [Request(one, prompt) for one, prompt in prompts.items()]
    with TemporaryDirectory() as made:
        folder, longest = folder_of(shape, sizes, Path(made)), max(map(len, prompts.values()))
        with (
            _opened("hf", folder, K, longest, sizes) as other,
            _opened("vllm", folder, K, longest, sizes) as asked,
        ):
            expected = other.generate(requests)
            with scheduled(asked) as work:
                found = asked.generate(requests)
            room = asked.llm.llm_engine.vllm_config.scheduler_config.max_num_seqs
            ratio = paired(lambda: other.generate(requests), lambda: asked.generate(requests), rounds, sizes.on)
    given = [[*prompt, *[PAD] * K] for prompt in prompts.values()]
    return Measured(
        f"answers by vLLM, K = {K}, B = {len(prompts)}",
        name,
        "the engine hf",
        ratio,
        unequal(_tokens(found), _tokens(expected)),
        {"questions": len(prompts)} | _counts(found, given, work, room),
    )


@contextmanager
def _opened(engine_name: str, folder: Path, K: int, longest: int, sizes: Sizes) -> Iterator[Any]:
    device, limit = torch.device(sizes.on.name), sizes.max_new_tokens
    with engine.opened(engine_name, folder, QThinkConfig(K, False), device, sizes.on.dtype, longest, limit) as one:
        yield one


def _tokens(found: Sequence[Sequence[Completion]]) -> list[list[int]]:
    return [list(one.tokens) for rows in found for one in rows]


def _counts(
    found: Sequence[Sequence[Completion]],
    prompts: Sequence[Sequence[int]],
    work: Scheduled,
    room: int,
    naively: Scheduled | None = None,
) -> dict[str, float]:
    """The counts of a row: the first token of a completion comes from its prompt, each other one from its predecessor."""
    rows = _tokens(found)
    emitted, read = sum(map(len, rows)), sum(map(len, prompts))
    counts: dict[str, float] = {
        "tokens_emitted": emitted,
        "tokens_computed": work.tokens,
        "computed_per_emitted": work.tokens / emitted,
        "reads_of_a_prompt": (work.tokens - (emitted - len(rows))) / read,
        "steps": work.steps,
        "sequences_in_a_step": work.sequences / work.steps,
        "full": work.sequences / work.steps / room,
    }
    return counts | ({"naive_steps": naively.steps, "naive_tokens_computed": naively.tokens} if naively else {})
