"""The engine hf: transformers with a decoding loop of this project, which reads a prompt once for all its completions."""

from collections.abc import Sequence
from pathlib import Path

import torch

from qthink_core.artifacts.completions import Completion
from qthink_core.generation.decoding import Choose, decode, greedy, sampler
from qthink_core.generation.reading import read
from qthink_core.generation.requests import Request, completed
from qthink_core.method.latent_steps import Context, latent_steps
from qthink_core.models import loading
from qthink_core.models.loading import QThinkConfig, System
from qthink_core.numerics.memory import keep_memory
from qthink_core.numerics.products import Reordered
from qthink_core.numerics.short_layers import ShortLayers


def load(folder: Path, config: QThinkConfig, device: torch.device, dtype: str) -> System:
    """The system in a folder: an exported model with its head, or a model without latent steps.

    Raises what `load_system` raises.
    """
    if config.K:
        return loading.load_system(folder, device, dtype)
    return loading.base_system(folder, device, dtype, config.thinking)


class HFEngine:
    """A loaded system, which does not change any more, with a limit on new tokens (engine.Engine)."""

    def __init__(self, system: System, max_new_tokens: int) -> None:
        self.system = system
        self.max_new_tokens = max_new_tokens
        self.products = Reordered(system.model, *filter(None, [system.head]))
        self.layers = ShortLayers(system.model)
        if system.model.device.type == "cpu":
            keep_memory()

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The n completions of each request, in one batch."""
        model, prompts = self.system.model, [one.prompt for one in requests]
        with torch.inference_mode(), self.products.used(), self.layers.used():
            context = read(model, prompts, self.system.tokenizer.pad_token_id)
            context, _ = latent_steps(model, self.system.head, context, self.system.K)
            return complete(self.system, requests, context, self.max_new_tokens)


def complete(system: System, requests: Sequence[Request], context: Context, max_new_tokens: int) -> list[list[Completion]]:
    """The completions of requests, from a context that holds their prompts and any latents; the context cannot be reused."""
    (n,) = {one.n for one in requests}
    names = [f"completion {index} of {one.problem_id}" for one in requests for index in range(n)]
    choose = chooser(requests, max_new_tokens)
    rows = iter(decode(system.model, context, choose, system.ends, max_new_tokens, names, each=n))
    return [[completed(one, next(rows), system.tokenizer, system.ends) for _ in range(n)] for one in requests]


def chooser(requests: Sequence[Request], max_new_tokens: int) -> Choose:
    """The rule that chooses the next token of every completion of the requests: greedy or sampled."""
    (how,) = {one.sampling and one.sampling._replace(first=0) for one in requests}
    if how is None:
        return greedy
    keys = [one.sampling.key(one.problem_id, index) for one in requests if one.sampling for index in range(one.n)]
    return sampler(keys, how.temperature, how.top_p, how.top_k, max_new_tokens)
