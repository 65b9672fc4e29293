"""What a request to vLLM with latent steps may ask for, checked where vLLM takes requests in.

vLLM answers a refused request with status 400 and one line. The number of steps travels to the engine in `extra_args` of the
sampling parameters (`vllm_xargs` of the HTTP API).
"""

import functools
from collections.abc import Sequence
from typing import Any

from qthink_core.models.acceptance import chat_template
from qthink_core.serving import settings
from qthink_core.serving.settings import OPTION, Latents

MAX_STEPS = 64


def install() -> None:
    """Puts the check into vLLM's `InputProcessor` of this process; a second call does nothing."""
    from vllm.v1.engine.input_processor import InputProcessor

    if hasattr(InputProcessor.process_inputs, "__wrapped__"):
        return
    start, process = InputProcessor.__init__, InputProcessor.process_inputs

    @functools.wraps(start)
    def start_with_defaults(self: Any, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **kwargs)
        found = settings.of(self.vllm_config)
        if found is not None and not found.thinking:
            ask_without_thinking(self.renderer)

    @functools.wraps(process)
    def process_and_admit(self: Any, *args: Any, **kwargs: Any) -> Any:
        request = process(self, *args, **kwargs)
        found = settings.of(self.vllm_config)
        if found is not None:
            admit(request, found, empty_block(self.tokenizer), self.model_config.max_model_len)
        return request

    InputProcessor.__init__, InputProcessor.process_inputs = start_with_defaults, process_and_admit


def ask_without_thinking(renderer: Any) -> None:
    """Makes `enable_thinking` false where a chat request does not set it: the model was trained on such prompts."""
    default = {"enable_thinking": False}
    render, render_async = renderer.render_messages, renderer.render_messages_async

    @functools.wraps(render)
    def render_messages(messages: Any, params: Any) -> Any:
        return render(messages, params.with_defaults(default))

    @functools.wraps(render_async)
    async def render_messages_async(messages: Any, params: Any) -> Any:
        return await render_async(messages, params.with_defaults(default))

    renderer.render_messages, renderer.render_messages_async = render_messages, render_messages_async


def empty_block(tokenizer: Any) -> list[int]:
    """The token ids of the chat template's empty think block; none when vLLM was started without a tokenizer."""
    if tokenizer is None:
        return []
    block = (
        chat_template.empty_block(tokenizer, "the chat template") if tokenizer.chat_template else chat_template.EMPTY_BLOCK
    )
    return tokenizer.encode(block, add_special_tokens=False)


def admit(request: Any, latents: Latents, block: Sequence[int], positions: int) -> None:
    """Writes the number of latent steps into a request, and lowers its `max_tokens` to the positions that are left.

    Raises vLLM's VLLMValidationError for a request that would get no latent steps without having asked for that, whose
    prompt does not leave room for them, or that asks for what vLLM cannot give with them.
    """
    from vllm.exceptions import VLLMValidationError

    params, prompt = request.sampling_params, request.prompt_token_ids
    steps = steps_asked_for(params, latents.K)
    if steps is None:
        steps = latents.K
        if not latents.thinking and prompt[len(prompt) - len(block) :] != list(block):
            raise VLLMValidationError(
                "the prompt does not end in an empty think block, which this model's latent steps follow: send "
                'chat_template_kwargs={"enable_thinking": false}, or say how many steps you want, as in '
                f'vllm_xargs={{"{OPTION}": 0}}',
                parameter="prompt",
            )
    if steps:
        refuse_unsupported(request)
        left = positions - len(prompt) - steps
        if left < 1:
            raise VLLMValidationError(
                f"the prompt has {len(prompt)} tokens and {steps} latent steps follow, but the model has {positions} "
                "positions, of which the answer needs one: shorten the prompt",
                parameter="prompt",
            )
        params.max_tokens = min(params.max_tokens, left)
        params.min_tokens = min(params.min_tokens, params.max_tokens)
    params.extra_args = {**(params.extra_args or {}), OPTION: steps}


def steps_asked_for(params: Any, K: int) -> int | None:
    """The number of latent steps that a request asks for, None when it does not; VLLMValidationError for anything else."""
    from vllm.exceptions import VLLMValidationError

    asked, most = (params.extra_args or {}).get(OPTION), max(K, MAX_STEPS)
    if asked is not None and (type(asked) is not int or not 0 <= asked <= most):
        raise VLLMValidationError(f"{OPTION} is {asked!r}: expected a number of steps from 0 to {most}", parameter=OPTION)
    return asked


def refuse_unsupported(request: Any) -> None:
    """Raises VLLMValidationError for what vLLM cannot give with latent steps."""
    from vllm.exceptions import VLLMValidationError
    from vllm.platforms import current_platform

    params = request.sampling_params
    of_prompt = params.prompt_logprobs is not None or params.prompt_logprob_token_ids is not None
    for what, found in {
        "log-probabilities of the prompt are": of_prompt,
        "a prompt in several parts is": request.resumable,
        # vLLM draws for unfinished chunks of a prompt, too, and takes the draw back, which it cannot do on a CPU.
        "a seed (on a CPU) is": params.seed is not None and current_platform.is_cpu(),
    }.items():
        if found:
            raise VLLMValidationError(f"{what} not available with latent steps: leave it out, or send {OPTION}=0")
