"""Answerers: who answers the questions, as params name it. `hf` is transformers and our own loop; `vllm` decodes by vLLM."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from qthink_core.artifacts.completions import Answer
from qthink_core.artifacts.conditions import TRAINED
from qthink_core.errors import DataError, NumericError
from qthink_core.generation import answering, vllm_engine
from qthink_core.generation.decoding import Sampling, answer_key, request_seed
from qthink_core.generation.vllm_engine import Engine
from qthink_core.method.latent_steps import latent_steps, project, read_prompts
from qthink_core.method.think import spoken
from qthink_core.models.loading import System


@contextlib.contextmanager
def opened(
    engine: str,
    folder: Path,
    system: System,
    longest_prompt: int,
    max_new_tokens: int,
    sampling: Sampling | None = None,
) -> Iterator[Callable[..., list[Answer]]]:
    """`answer` of the named engine for prompts of at most so many tokens; `folder` is what the system was loaded from."""
    if engine == "hf":
        yield partial(answering.answer, sampling=sampling)
        return
    assert engine == "vllm", engine
    dtype = str(system.model.dtype).removeprefix("torch.")
    longest = longest_prompt + system.K + max_new_tokens
    with vllm_engine.opened(folder, system.model.device, dtype, longest, embeddings=system.K > 0) as loaded:
        yield partial(by_vllm, loaded, sampling=sampling)


def by_vllm(
    engine: Engine,
    system: System,
    prompts: Mapping[str, Sequence[int]],
    max_new_tokens: int,
    seed: int | None = None,
    sampling: Sampling | None = None,
) -> list[Answer]:
    """Completions of one batch, as `answering.answer` returns them: transformers take the latent steps, vLLM goes on.

    Greedy or sampled as there; the draws are vLLM's, so sampled texts are others than those of hf.

    Raises DataError where the latents are of another width than the engine's embeddings, and NumericError where a number in
    them or a logit is not finite.
    """
    if system.K:
        inputs: list[dict[str, Any]] = [{"prompt_embeds": one} for one in embedded(system, prompts)]
        check_width(inputs[0]["prompt_embeds"].shape[1], engine.hidden_size)
    else:
        inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts.values()]
    eos, names = system.tokenizer.eos_token_id, list(prompts)
    how: list[dict[str, Any]] = [{"temperature": 0.0}] * len(inputs)
    if sampling is not None and answering.thinks(system):
        run, shared = sampling.seed, {key: value for key, value in sampling._asdict().items() if key != "seed"}
        how = [shared | {"seed": request_seed(run, name) + answer_key(run, name, seed)[2]} for name in names]
    done = vllm_engine.generate(engine, inputs, how, eos, max_new_tokens, names)
    return [
        Answer(name, seed, TRAINED, row.tokens, spoken(system.tokenizer, prompts[name], row.tokens), row.finish)
        for name, (row,) in zip(names, done, strict=True)
    ]


def embedded(system: System, prompts: Mapping[str, Sequence[int]]) -> list[Float[Tensor, "T D"]]:
    """[embeddings of the prompt; z_1..z_K] of each question, on the CPU: the latents are K more input embeddings.

    Raises NumericError naming the question and step of a latent that is not finite.
    """
    model, head = system.model, system.head
    assert head is not None, "latent steps need a projection head"
    with torch.inference_mode():
        context = read_prompts(model, list(prompts.values()), system.tokenizer.pad_token_id)
        # h_K is the engine's: it reads z_K and goes on to the first token
        _, steps = latent_steps(model, head, context, system.K - 1)
        z_BKD = torch.cat([project(model, head, hidden) for hidden in [context.hidden, *steps]], dim=1)
        finite = torch.isfinite(z_BKD).all(dim=2)
        if not finite.all():
            row, step = (~finite).nonzero()[0].tolist()
            raise NumericError(f"{list(prompts)[row]} has a latent that is not finite at step {step + 1}: check the model")
        table = model.get_input_embeddings()
        read = [table(torch.tensor(list(prompt), device=model.device)) for prompt in prompts.values()]
        return [torch.cat([prompt, latents]).cpu() for prompt, latents in zip(read, z_BKD, strict=True)]


def check_width(found: int, expected: int) -> None:
    """vLLM does not compare the width of the vectors it is sent with its own: raises DataError where they differ."""
    if found != expected:
        raise DataError(
            f"the latents have {found} numbers where the engine's model has {expected}: load both from one model folder"
        )
