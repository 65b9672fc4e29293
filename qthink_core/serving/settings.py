"""What the parts of the plugin of vLLM tell each other: the latent steps of a model, and those of a request."""

from typing import Any, NamedTuple

OPTION = "latents"  # of `--additional-config` and of a request's `vllm_xargs`
ATTRIBUTE = "qthink"  # of the Hugging Face config, which vLLM passes to all its processes


class Latents(NamedTuple):
    """What an engine with latent steps needs: their number K, the file of the head, and the model's own habits.

    `thinking` says whether the model writes its thoughts in text as well, so that its prompts end in no empty think block.
    `placeholder` is the token id that stands for a latent in vLLM's books. It is the first id after the vocabulary, which
    no text has and which vLLM itself uses as padding.
    """

    K: int
    head: str
    thinking: bool
    placeholder: int


def of(config: Any) -> Latents | None:
    """The latents of a configured `VllmConfig`; None for an ordinary model."""
    found = getattr(config.model_config.hf_config, ATTRIBUTE, None)
    return None if found is None else Latents(**found)


def steps_of(params: Any, default: int) -> int:
    """The number of latent steps that sampling parameters ask for."""
    return int((params.extra_args or {}).get(OPTION, default))
