"""The scheduler of vLLM with latent steps: K more positions after the prompt, computed one at a time.

To vLLM, a request with latent steps is one whose prompt is K placeholders longer, and whose prompt is computed in chunks:
the prompt proper, in as many chunks as vLLM likes, and then K chunks of one token (serving/chunks.py). What vLLM does with
chunks of a prompt then holds for latent steps: they share passes with other requests, no token is sampled before the last of
them, and a preempted request takes them again. The API's side of vLLM does not see the placeholders.
"""

from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from qthink_core.serving import settings
from qthink_core.serving.chunks import cut, usable


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


class _Latents:
    """What is added to both of vLLM's schedulers."""

    vllm_config: Any
    kv_cache_manager: Any
    block_size: int

    def add_request(self, request: Any) -> None:
        found = settings.of(self.vllm_config)
        assert found is not None
        steps = settings.steps_of(request.sampling_params, found.K)
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
    """The positions of a request's latents; empty for a request without latent steps."""
    return getattr(request, "latents", range(0))


class LatentScheduler(_Latents, Scheduler):
    """vLLM's scheduler with latent steps."""


class LatentAsyncScheduler(_Latents, AsyncScheduler):
    """vLLM's scheduler that works ahead of the model, with latent steps."""
