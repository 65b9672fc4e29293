"""Last hidden states: the only module that reads them, for teachers and students alike.

"Last" means `hidden_states[-1]` of Hugging Face: the states after the final norm, so that `lm_head(h)` gives the logits
(decision 2).
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from qthink_core.errors import NumericError
from qthink_core.method.attention import PLAIN
from qthink_core.method.last_layer import last_layer, last_positions
from qthink_core.method.packing.reading import packed
from qthink_core.method.packing.windows import Marked
from qthink_core.numerics.products import reordered

# Types of models by their first letters, with the name of their factor in the config. Gemma and nanochat cap their logits
# instead, which their configs name `final_logit_softcapping`.
DIVIDES, MULTIPLIES = "granite", "cohere"
FULL = "full_attention"
# Rotary position embeddings that depend on the longest sequence of a pass.
BY_LENGTH = {"dynamic", "longrope"}


@runtime_checkable
class Attending(Protocol):
    """A cache with an attention of its own, to which a model's queries and new keys and values go in a context."""

    def positions(self, new: int) -> Int[Tensor, "B T"]: ...
    def attention(self, model: PreTrainedModel, new: int) -> AbstractContextManager[None]: ...


def last_hidden(
    model: PreTrainedModel,
    *,
    mask: Int[Tensor, "B C"],
    input_ids: Int[Tensor, "B T"] | None = None,
    inputs_embeds: Float[Tensor, "B T D"] | None = None,
    cache: Any = None,
    read: int | None = None,
) -> Float[Tensor, "B R D"]:
    """The last hidden states of the new tokens, or of the last `read` of them; the output head is not computed.

    The T new tokens follow the cached ones, and `mask` covers both (C = cached + T). A token's position is the number of
    ones in the mask before it, so padding on either side does not change positions. `cache` is extended in place.
    """
    new = (input_ids if input_ids is not None else inputs_embeds).shape[1]  # type: ignore[union-attr]
    body = model.get_decoder()
    if isinstance(cache, Attending):
        with cache.attention(model, new):
            where = cache.positions(new)
            return body(
                input_ids=input_ids, inputs_embeds=inputs_embeds, position_ids=where, use_cache=False
            ).last_hidden_state
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -new:]
    with nullcontext() if read is None or read >= new else last_positions(model, read):
        hidden = body(
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
    return hidden if read is None else hidden[:, -read:]


def logits(model: PreTrainedModel, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
    """The logits of last hidden states, in float32: those of the output head, and what the model does with them after it.

    The model's own forward does the same in the same dtype. `models.acceptance.forward` compares the two for each model that
    is taken in, so that a rule that is missing here is a refusal.
    """
    scores, config = model.get_output_embeddings()(hidden), model.config
    if config.model_type.startswith(DIVIDES):
        scores = scores / config.logits_scaling
    if config.model_type.startswith(MULTIPLIES):
        scores = scores * config.logit_scale
    cap = getattr(config, "final_logit_softcapping", None)
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    return scores.float()


def pad(
    rows: Sequence[Sequence[int]], fill: int, side: str, device: torch.device | str = "cpu"
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Token rows as one tensor, padded with `fill` on the `left` or `right` side, and its mask (1: token, 0: padding)."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), fill, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        where = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[index, where] = torch.tensor(row, dtype=torch.long)
        mask[index, where] = 1
    return ids.to(device), mask.to(device)


def read_positions(
    model: PreTrainedModel, wanted: Sequence[Marked], K: int, batch_tokens: int, dtype: str
) -> Float[np.ndarray, "N K D"]:
    """The last hidden states at each sequence's K positions, in the order given.

    The output head is not computed, and the last layer only where it has to be. Only K vectors per sequence leave the
    device. Sequences are packed without padding, and a prompt that several share is read once (`packing`), if the model's
    attention allows it (`can_pack`). Otherwise a batch holds sequences of similar length. A pass has at most `batch_tokens`
    tokens, including padding. Raises NumericError naming the sequence and the step of a value that is not
    finite in `dtype`.
    """
    out = np.empty((len(wanted), K, model.config.hidden_size), dtype=dtype)
    with reordered(model.get_decoder(), moved=True, few_sizes=True):
        for at, states in (packed if can_pack(model) else _padded)(model, wanted, batch_tokens):
            out[at] = states.float().cpu().numpy().astype(dtype)
    bad = np.argwhere(~np.isfinite(out).all(axis=2))
    if len(bad):
        row, step = bad[0]
        raise NumericError(
            f"{wanted[row].name} has a hidden state that is not finite in {dtype} at position {step + 1} of {K} "
            f"(and {len(bad) - 1} more): check the base model, or store a wider dtype"
        )
    return out


def can_pack(model: PreTrainedModel) -> bool:
    """Whether all layers of a model attend to all earlier tokens through the interface of transformers.

    Their body has its layers in a list. Others are read in padded batches: sliding windows, capped attention (Gemma 2),
    attention code of their own, and rotary embeddings that depend on the longest sequence.
    """
    config = model.config
    plain = all(getattr(config, name, None) is None for name in ("sliding_window", "attn_logit_softcapping"))
    full = set(getattr(config, "layer_types", None) or [FULL]) == {FULL}
    fixed = (getattr(config, "rope_parameters", None) or {}).get("rope_type") not in BY_LENGTH
    interface = bool(model._supports_attention_backend) and config._attn_implementation == PLAIN
    return interface and plain and full and fixed and last_layer(model) is not None


def _padded(
    model: PreTrainedModel, wanted: Sequence[Marked], batch_tokens: int
) -> Iterator[tuple[list[int], Float[Tensor, "B K D"]]]:
    order = sorted(range(len(wanted)), key=lambda i: (len(wanted[i].tokens), i))
    for batch in batches_of_like_length(order, [len(row.tokens) for row in wanted], batch_tokens):
        rows = [wanted[index] for index in batch]
        ids, mask = pad([row.tokens for row in rows], 0, "right", model.device)
        start = min(min(row.positions) for row in rows)
        with torch.inference_mode():
            hidden_BTD = last_hidden(model, input_ids=ids, mask=mask, read=ids.shape[1] - start)
            at = torch.tensor([list(row.positions) for row in rows], device=model.device) - start
            yield batch, hidden_BTD.gather(1, at[:, :, None].expand(-1, -1, hidden_BTD.shape[-1]))


def batches_of_like_length(order: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """The indices in groups whose padded size is at most `batch_tokens`; `order` lists them from short to long.

    A sequence that is longer than `batch_tokens` is a group of its own.
    """
    groups: list[list[int]] = []
    for index in order:
        if groups and lengths[index] * (len(groups[-1]) + 1) <= batch_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
