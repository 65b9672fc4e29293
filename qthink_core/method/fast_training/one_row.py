"""A micro-batch as one row of tokens without padding, read in several passes that remember keys and values.

Everything in a layer but its attention treats each token by itself. The attention gathers the sequences into padded batches,
so only it computes padding.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from qthink_core.method.attention import in_place_of_plain
from qthink_core.method.hidden_states import can_pack
from qthink_core.method.last_layer import wanted_positions

# These two change gradients by rounding alone, so they are not parameters (docs/decisions/engineering.md, Passes).
# On a processor, sequences of other lengths get an attention batch of their own from so many numbers on: tokens times the
# width of the model. Below, and on a GPU, more calls would take longer than the padding that they save.
LEAST = 1 << 17
# How many times as long as the first of its attention batch a sequence may be.
SPREAD = 1.25


def can_read(model: PreTrainedModel) -> bool:
    """Whether a model's attention allows one row (`can_pack`) and has no dropout, which this attention would leave out."""
    return can_pack(model) and not getattr(model.config, "attention_dropout", 0.0)


class Batch(NamedTuple):
    """An attention batch of n sequences of at most `width` new tokens, `tokens` in all.

    `real` is true where the batch has a token. `take` is the token at each place of the batch, the first one in padding, and
    `place` the place of each token; both are None where no sequence needs padding.
    """

    n: int
    width: int
    tokens: int
    real: Bool[Tensor, "B W"]
    take: Int[Tensor, " L"] | None
    place: Int[Tensor, " T"] | None


def batch_of(lengths: Sequence[int], device: torch.device) -> Batch:
    """The batch of sequences that lie one after the other in a row of tokens."""
    n, width, tokens = len(lengths), max(lengths), sum(lengths)
    counts = torch.tensor(lengths)
    real = torch.arange(width) < counts[:, None]
    if tokens == n * width:
        return Batch(n, width, tokens, real.to(device), None, None)
    at = (counts.cumsum(0) - counts)[:, None] + torch.arange(width)
    take, place = torch.where(real, at, 0).flatten(), real.flatten().nonzero()[:, 0]
    return Batch(n, width, tokens, real.to(device), take.to(device), place.to(device))


def padded(states: Float[Tensor, "T H E"], batch: Batch) -> Float[Tensor, "B H W E"]:
    """The states of a batch's tokens as attention takes them."""
    if batch.take is not None:
        states = states.index_select(0, batch.take)
    return states.unflatten(0, (batch.n, batch.width)).transpose(1, 2)


def unpadded(states: Float[Tensor, "B H W E"], batch: Batch) -> Float[Tensor, "T H E"]:
    """The states of a batch's tokens in their order."""
    flat = states.transpose(1, 2).flatten(0, 1)
    return flat if batch.place is None else flat.index_select(0, batch.place)


def sizes_of(lengths: Sequence[int], width: int, device: torch.device) -> list[int]:
    """The numbers of sequences in each attention batch; `lengths` rise, and `width` is that of the model."""
    starts = [0]
    for index, length in enumerate(lengths):
        held = sum(lengths[starts[-1] : index])
        if device.type == "cpu" and held * width >= LEAST and length > SPREAD * lengths[starts[-1]]:
            starts.append(index)
    return [end - start for start, end in zip(starts, [*starts[1:], len(lengths)], strict=True)]


class OneRow:
    """Sequences that a model reads in passes, each the next tokens of all of them as one row.

    `lengths` are those of the first pass, from short to long.
    """

    def __init__(self, model: PreTrainedModel, lengths: Sequence[int]) -> None:
        self.model = model
        self.sizes = sizes_of(lengths, model.config.hidden_size, model.device)
        self.counts = [0] * len(lengths)
        self.seen: list[Bool[Tensor, "B C"]] = []  # by batch, true where a key is that of a token
        self.read_by_layer: list[list[tuple[Tensor, Tensor]]] = []  # by layer and batch, the keys and the values

    def read(
        self,
        inputs: Float[Tensor, "T D"],
        lengths: Sequence[int],
        wanted: Int[Tensor, " R"] | None = None,
    ) -> Float[Tensor, "_R D"]:
        """The last hidden states of the next tokens, `lengths` of them of each sequence, or of the `wanted` ones alone."""
        device, bounds = self.model.device, [0, *accumulate(self.sizes)]
        batches = [batch_of(lengths[start:end], device) for start, end in pairwise(bounds)]
        at = [before + new for before, n in zip(self.counts, lengths, strict=True) for new in range(n)]
        masks = self._masks(batches, inputs.dtype)
        with self._attention(batches, masks), nullcontext() if wanted is None else wanted_positions(self.model, wanted):
            body = self.model.get_decoder()
            positions = torch.tensor([at], device=device)
            hidden = body(inputs_embeds=inputs[None], position_ids=positions, use_cache=False).last_hidden_state[0]
        self.counts = [before + n for before, n in zip(self.counts, lengths, strict=True)]
        real = [batch.real for batch in batches]
        self.seen = [torch.cat(two, dim=1) for two in zip(self.seen, real, strict=True)] if self.seen else real
        return hidden if wanted is None else hidden.index_select(0, wanted)

    def _masks(self, batches: list[Batch], dtype: torch.dtype) -> list[Float[Tensor, "B 1 W C"]] | None:
        """What attention adds to its scores: nothing where a token sees a key, and minus infinity elsewhere.

        None in the first pass, which is causal and padded on the right.
        """
        if not self.seen:
            return None
        masks = []
        for seen, batch in zip(self.seen, batches, strict=True):
            before = seen[:, None].expand(-1, batch.width, -1)
            own = torch.ones(batch.width, batch.width, dtype=torch.bool, device=seen.device).tril().expand(batch.n, -1, -1)
            hidden = ~torch.cat([before, own], dim=2)[:, None]
            masks.append(torch.zeros(hidden.shape, dtype=dtype, device=seen.device).masked_fill_(hidden, float("-inf")))
        return masks

    @contextmanager
    def _attention(self, batches: list[Batch], masks: list[Tensor] | None) -> Iterator[None]:
        """A context in which the model attends by these batches, and keeps what it reads."""
        tokens, layer, rows = [batch.tokens for batch in batches], 0, list[Tensor | None]([None] * len(batches))

        def attend(
            _: Any, query: Tensor, key: Tensor, value: Tensor, *__: Any, scaling: float | None = None, **___: Any
        ) -> tuple[Tensor, None]:
            nonlocal layer, rows
            if masks is not None and rows[0] is None:
                rows = [mask.repeat(1, 1, query.shape[1] // key.shape[1], 1).to(query.dtype) for mask in masks]
            by_batch = [states[0].transpose(0, 1).split(tokens) for states in (query, key, value)]
            now, parts = [], []
            for index, batch in enumerate(batches):
                q, k, v = (padded(states[index], batch) for states in by_batch)
                if masks is not None:
                    before_k, before_v = self.read_by_layer[layer][index]
                    k, v = torch.cat([before_k, k], dim=2), torch.cat([before_v, v], dim=2)
                now.append((k, v))
                out = attention(q, k, v, rows[index], scaling)
                parts.append(unpadded(out, batch))
            if masks is None:
                self.read_by_layer.append(now)
            else:
                self.read_by_layer[layer] = now
            layer += 1
            return torch.cat(parts)[None], None

        with in_place_of_plain(self.model, attend):
            yield


def attention(
    q: Float[Tensor, "B A T E"],
    k: Float[Tensor, "B H C E"],
    v: Float[Tensor, "B H C F"],
    mask: Float[Tensor, "B 1 M C"] | None,
    scale: float | None,
) -> Float[Tensor, "B A T F"]:
    """Attention of H heads to G heads of keys and values; it is causal without a mask.

    With a mask, the queries of the H / G heads that share keys are read as H / G * T queries of one head, since not every
    device has a kernel that takes both a mask and shared heads. The mask repeats its rows for them.
    """
    H, G, T = q.shape[1], k.shape[1], q.shape[2]
    if mask is None:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=H != G)
    one = q.unflatten(1, (G, H // G)).flatten(2, 3)
    out = functional.scaled_dot_product_attention(one, k, v, attn_mask=mask, scale=scale)
    return out.unflatten(2, (H // G, T)).flatten(1, 2)
