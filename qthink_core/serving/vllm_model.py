"""Models of vLLM with latent steps: the input of a placeholder is the projected hidden state of the position before it.

The scheduler (vllm_scheduler) has the placeholders of a request computed one at a time, each as the only token of its
request in the pass. So a pass needs one hidden state from an earlier pass for each request, and leaves one behind: that of
the last token it computes. States are kept by block of vLLM's K/V cache. A request shares the block of its last token with
no other: vLLM shares full blocks only, and `chunks.usable` has the last block of the prompt computed again. That needs no
list of requests, and a state is valid exactly as long as the keys and values beside it.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from vllm.forward_context import get_forward_context, is_forward_context_available
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

from qthink_core.errors import ParamError
from qthink_core.method import projection_head
from qthink_core.method.projection_head import ProjectionHead
from qthink_core.serving import settings


class Pass(NamedTuple):
    """Where the B requests of a pass are: the index of the last token of each, its block, and that of the token before."""

    last: Int[Tensor, " B"]
    block: Int[Tensor, " B"]
    block_before: Int[Tensor, " B"]


def current(positions: Int[Tensor, " T"], block_size: int) -> Pass | None:
    """The pass that vLLM is about to compute; None where it only measures memory.

    Raises ParamError when the attention backend does not say which blocks a request has. Fails an assertion when blocks are
    not what this module takes them for.
    """
    if not is_forward_context_available():
        return None
    metadata = get_forward_context().attn_metadata
    if not metadata:
        return None
    one = next(iter(metadata.values())) if isinstance(metadata, dict) else None
    if one is None or not all(hasattr(one, name) for name in ("query_start_loc", "block_table", "slot_mapping")):
        raise ParamError(f"the latent steps cannot read {type(one).__name__}: choose another --attention-backend")
    last = one.query_start_loc[1:].long() - 1
    at = positions[last]
    rows = torch.arange(len(last), device=last.device)
    block, before = (one.block_table[rows, place.clamp(min=0) // block_size].long() for place in (at, at - 1))
    torch._assert_async((one.slot_mapping[last] == block * block_size + at % block_size).all())
    return Pass(last, block, before)


class _LatentSteps:
    """Latent steps for a causal language model of vLLM, to be inherited from before the model's own class."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        found = settings.of(vllm_config)
        assert found is not None, "the plugin has configured this engine"
        self.latents = found
        self.cache_config = vllm_config.cache_config
        D = vllm_config.model_config.get_hidden_size()
        self.latent_head = ProjectionHead(D)
        # One address for all passes, as CUDA graphs of the layers need it.
        self.embeds = torch.empty(vllm_config.scheduler_config.max_num_batched_tokens, D)
        self.states: Tensor | None = None

    def load_weights(self, weights: Any) -> set[str]:
        """vLLM's loader takes the names of all weights that were loaded."""
        loaded = super().load_weights(weights)  # type: ignore[misc]
        head = projection_head.load(Path(self.latents.head), self.embeds.shape[1])
        self.latent_head.load_state_dict(head.state_dict())
        return {*loaded, *(f"latent_head.{name}" for name in head.state_dict())}

    def forward(
        self, input_ids: Tensor, positions: Tensor, intermediate_tensors: Any = None, inputs_embeds: Any = None
    ) -> Float[Tensor, "T D"]:
        """The last hidden states of all tokens of a pass."""
        assert inputs_embeds is None, "prompt embeddings are refused at the start"
        now = current(positions, self.cache_config.block_size)
        hidden = self.model(None, positions, intermediate_tensors, self._inputs(input_ids, now))  # type: ignore[attr-defined]
        if now is not None:
            self._kept()[now.block] = hidden[now.last]
        return hidden

    def _inputs(self, input_ids: Int[Tensor, " T"], now: Pass | None) -> Float[Tensor, "T D"]:
        """The input embeddings of a pass, those of placeholders from the states that earlier passes left."""
        latent = input_ids == self.latents.placeholder
        embeds = self.embeds[: len(input_ids)]
        embeds.copy_(self.embed_input_ids(input_ids.masked_fill(latent, 0)))  # type: ignore[attr-defined]
        if now is not None:
            projected = self.latent_head(self._kept()[now.block_before])
            embeds[now.last] = torch.where(latent[now.last, None], projected, embeds[now.last])
        return embeds

    def _kept(self) -> Float[Tensor, "N D"]:
        """The hidden state of the last token computed in each block."""
        if self.states is None:
            blocks = self.cache_config.num_gpu_blocks
            assert blocks, "the K/V cache has been set up"
            self.states = self.embeds.new_zeros(blocks, self.embeds.shape[1])
        return self.states


class LatentQwen3(_LatentSteps, Qwen3ForCausalLM):
    """Qwen3 with latent steps."""


class LatentLlama(_LatentSteps, LlamaForCausalLM):
    """Llama with latent steps."""
