"""The scheduler of vLLM with latent steps: K more positions after the prompt, computed one at a time.

A latent step reads the hidden state of the position before it, so no two of them can share a pass. To vLLM a request with
latent steps is one whose prompt is K placeholders longer, and whose prefill is cut into chunks: the prompt itself, in as many
chunks as vLLM likes, and then K chunks of one token. All that vLLM does with chunks of a prompt then holds for latent steps:
they share passes with other requests, no token is sampled before the last, and a preempted request takes them again.
"""

from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from qthink_core.serving import vllm_plugin
from qthink_core.serving.vllm_requests import steps_of


def scheduler(*args: Any, **kwargs: Any) -> Any:
    """The scheduler of an engine, for vLLM's option `scheduler_cls`."""
    asynchronous = kwargs["vllm_config"].scheduler_config.async_scheduling
    return (LatentAsyncScheduler if asynchronous else LatentScheduler)(*args, **kwargs)


def extend(request: Any, steps: int, placeholder: int) -> None:
    """Appends the placeholders of the latent steps to the prompt of a request, and notes where they are."""
    ids = [placeholder] * steps
    request.latents = range(request.num_prompt_tokens, request.num_prompt_tokens + steps)
    request.prompt_token_ids = [*request.prompt_token_ids, *ids]
    request._all_token_ids.extend(ids)
    request.num_prompt_tokens += steps
    request.update_block_hashes()


def cut(latents: range, computed: int, tokens: int) -> int:
    """How many of the next `tokens` tokens a pass may compute after `computed`: up to the first latent, then one by one."""
    if computed < latents.start:
        return min(tokens, latents.start - computed)
    return min(tokens, 1) if computed < latents.stop else tokens


def usable(latents: range, cached: int, block_size: int) -> int:
    """How many of the `cached` tokens found in the prefix cache a request may use.

    The cache holds keys and values, but not the hidden state that the next latent step reads. So the last token of the prompt
    is computed again, with its block, unless all latents are cached.
    """
    return (latents.start - 1) // block_size * block_size if cached in latents else cached


class _Latents:
    """What is added to both of vLLM's schedulers; `_latents_of` is empty for a request without latent steps."""

    vllm_config: Any
    kv_cache_manager: Any
    block_size: int

    def add_request(self, request: Any) -> None:
        found = vllm_plugin.of(self.vllm_config)
        assert found is not None
        steps = steps_of(request.sampling_params, found.K)
        if steps and request.request_id not in self.requests:  # type: ignore[attr-defined]
            extend(request, steps, found.placeholder)
        super().add_request(request)  # type: ignore[misc]

    def _reserve_prefill_lookahead(self, request: Any, num_computed_tokens: int, num_new_tokens: int) -> int:
        """vLLM asks here how much of a prompt to compute, for running and for waiting requests."""
        allowed = super()._reserve_prefill_lookahead(request, num_computed_tokens, num_new_tokens)  # type: ignore[misc]
        return cut(_latents_of(request), num_computed_tokens, allowed)

    def _get_local_prefix_cache_hit(self, request: Any) -> tuple[Any, int, int, bool]:
        blocks, cached, boundary, diverged = super()._get_local_prefix_cache_hit(request)  # type: ignore[misc]
        allowed = usable(_latents_of(request), cached, self.block_size)
        if allowed < cached:
            blocks = self.kv_cache_manager.truncate_computed_blocks(blocks, allowed)
        return blocks, allowed, boundary, diverged


def _latents_of(request: Any) -> range:
    return getattr(request, "latents", range(0))


class LatentScheduler(_Latents, Scheduler):
    """vLLM's scheduler with latent steps."""


class LatentAsyncScheduler(_Latents, AsyncScheduler):
    """vLLM's scheduler that works ahead of the model, with latent steps."""
