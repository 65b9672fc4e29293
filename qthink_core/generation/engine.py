"""Engines: what generates completions. `hf` is transformers and our own loop; `vllm` is vLLM."""

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
    """A loaded system and its limit of new tokens."""

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The n completions of each request: the prompt, the system's K latent steps, then tokens up to the limit.

        The requests of one call have the same n and are drawn alike but for `first`. Greedy tokens are the same with either
        engine, up to the rounding of logits; sampled ones are not, as each engine has random numbers of its own. Raises
        NumericError, with the problem id, where a number in the model is not finite.
        """
        ...


@contextmanager
def opened(
    name: str, folder: Path, config: QThinkConfig, device: torch.device, dtype: str, longest_prompt: int, max_new_tokens: int
) -> Iterator[Engine]:
    """The engine of a name with the model of a folder, for prompts of at most `longest_prompt` tokens.

    Raises what `hf_engine.load` and `vllm_engine.opened` raise.
    """
    if name == "hf":
        yield hf_engine.HFEngine(hf_engine.load(folder, config, device, dtype), max_new_tokens)
        return
    assert name == "vllm", name
    with vllm_engine.opened(folder, config, device, dtype, longest_prompt, max_new_tokens) as engine:
        yield engine
