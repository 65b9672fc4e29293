"""Engines, which generate completions: `hf` is transformers with a decoding loop of this project, `vllm` is vLLM."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch

from qthink_core.artifacts.completions import Completion
from qthink_core.generation import hf_engine, vllm_engine
from qthink_core.generation.requests import Request
from qthink_core.models.loading import QThinkConfig


class Engine(Protocol):
    """A loaded system with a limit on new tokens."""

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The n completions of each request: the prompt, the system's K latent steps, then tokens up to the limit.

        The requests of one call have the same n and, except for `first`, the same sampling. Greedy tokens are the same with
        both engines, up to the rounding of logits. Sampled tokens differ, because each engine has its own random numbers.
        Raises NumericError naming the problem id when a number in the model is not finite.
        """
        ...


@contextmanager
def opened(
    name: str, folder: Path, config: QThinkConfig, device: torch.device, dtype: str, longest_prompt: int, max_new_tokens: int
) -> Iterator[Engine]:
    """The engine `name` (`hf` or `vllm`) with the model in `folder`, for prompts of at most `longest_prompt` tokens.

    Raises what `hf_engine.load` and `vllm_engine.opened` raise.
    """
    if name == "hf":
        yield hf_engine.HFEngine(hf_engine.load(folder, config, device, dtype), max_new_tokens)
        return
    assert name == "vllm", name
    with vllm_engine.opened(folder, config, device, dtype, longest_prompt, max_new_tokens) as engine:
        yield engine
