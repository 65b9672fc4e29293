"""The latent steps: K times, the projection head turns the last hidden state into the next input embedding."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from qthink_core.method.hidden_states import last_hidden, pad
from qthink_core.method.projection_head import ProjectionHead


class Context(NamedTuple):
    """What the model has read so far: its cache, the mask of the cached tokens, and the last hidden state.

    The cache is one of transformers, or has an attention of its own (`hidden_states.Attending`).
    """

    cache: Any
    mask: Int[Tensor, "B C"]
    hidden: Float[Tensor, "B D"]


def read_prompts(model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad_id: int) -> Context:
    """The context after one pass over left-padded prompts."""
    ids, mask = pad(prompts, pad_id, "left", model.device)
    cache = DynamicCache(config=model.config)
    hidden = last_hidden(model, input_ids=ids, mask=mask, cache=cache, read=1)
    return Context(cache, mask, hidden[:, -1])


def project(model: PreTrainedModel, head: ProjectionHead, hidden: Float[Tensor, "B D"]) -> Float[Tensor, "B 1 D"]:
    """The next latent input: the head computes in its own dtype, and the result has that of the model's embeddings."""
    embeddings = model.get_input_embeddings().weight
    assert isinstance(embeddings, Tensor), "input embeddings have a weight"
    return head(hidden.to(head.dtype)).to(embeddings.dtype)[:, None]


def latent_steps(
    model: PreTrainedModel, head: ProjectionHead | None, context: Context, K: int, one_step: bool = False
) -> tuple[Context, list[Float[Tensor, "B D"]]]:
    """The context after K latent steps, and the last hidden state h_k of each (model card, section Usage).

    h_k = body(head(h_{k-1})), where h_0 is the last hidden state of the prompt. Every pass gets its mask and positions
    explicitly, so the result does not depend on the size of the batch. With `one_step`, no gradient flows from a latent
    input into the hidden state that it was computed from.
    """
    cache, mask, hidden = context
    steps = []
    for _ in range(K):
        assert head is not None, "latent steps need a projection head"
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        latent = project(model, head, hidden.detach() if one_step else hidden)
        hidden = last_hidden(model, inputs_embeds=latent, mask=mask, cache=cache)[:, -1]
        steps.append(hidden)
    return Context(cache, mask, hidden), steps


def answer_states(
    model: PreTrainedModel,
    head: ProjectionHead,
    context: Context,
    K: int,
    answers: Int[Tensor, "B T"],
    mask: Int[Tensor, "B T"],
    one_step: bool = False,
) -> tuple[Float[Tensor, "B T D"], list[Float[Tensor, "B D"]]]:
    """The states that predict each token of the answers after K > 0 latent steps, and h_1..h_K.

    The last latent input and the answer share one pass. This is exact, because later tokens do not change earlier states.
    `answers` is padded on the right; `mask` is 0 there.
    """
    context, steps = latent_steps(model, head, context, K - 1, one_step)
    latent = project(model, head, context.hidden.detach() if one_step else context.hidden)
    inputs = torch.cat([latent, model.get_input_embeddings()(answers[:, :-1])], dim=1)
    mask = torch.cat([context.mask, context.mask.new_ones(len(answers), 1), mask[:, :-1]], dim=1)
    hidden = last_hidden(model, inputs_embeds=inputs, mask=mask, cache=context.cache)
    return hidden, [*steps, hidden[:, 0]]
