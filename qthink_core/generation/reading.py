"""Prompts are read once for all of their rows, packed without padding, if the model's attention allows it."""

import copy
import itertools
import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from qthink_core.generation.shared_prompts import SharedPrompts, joined, without_rows
from qthink_core.method.attention import in_place_of_plain
from qthink_core.method.hidden_states import can_pack
from qthink_core.method.last_layer import wanted_positions
from qthink_core.method.latent_steps import Context, read_prompts

# These two change results by rounding alone. They are not parameters because no device or model needs others. A stage runs
# again when one changes, since its fingerprint covers the code (docs/decisions/engineering.md, Passes).
READ_TOKENS = 2048  # of prompts in one pass: more of them would only take memory
# The longest prompt of an attention batch against its shortest: padding is computed there, in place of more calls.
SPREAD = 1.25


def read(model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad_id: int) -> Context:
    """The context of prompts for decoding without gradients.

    If the attention of the model allows it (`can_pack`), rows share their prompt. Otherwise prompts are padded on the
    left, and each row has a copy. In half precision, sums in another order would often give other tokens than the model's
    own code. A model whose attention does not allow it is logged once for each kind.
    """
    if model.dtype.itemsize < torch.float32.itemsize:
        return read_prompts(model, prompts, pad_id)
    if can_pack(model):
        return read_shared(model, prompts)
    _say(type(model).__name__)
    return read_prompts(model, prompts, pad_id)


def branch(context: Context, rows: Sequence[int] | None = None) -> Context:
    """A copy of the context, of all rows or of the given ones, with its own cache: using it does not change the original."""
    index = torch.arange(len(context.mask)) if rows is None else torch.tensor(rows)
    index = index.to(context.mask.device)
    if isinstance(context.cache, SharedPrompts):
        cache = context.cache.copy(index)
    else:
        cache = copy.copy(context.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]  # a layer replaces its tensors instead of changing them
        if rows is not None:
            cache.batch_select_indices(index)
    return Context(cache, context.mask[index], context.hidden[index])


def can_join(context: Context) -> bool:
    """Whether rows that come from this context by other ways can be decoded together."""
    return isinstance(context.cache, SharedPrompts)


def together(contexts: Sequence[Context]) -> Context:
    """The rows of contexts that come from one, which are not used any more."""
    width = max(one.mask.shape[1] for one in contexts)
    mask = torch.cat([functional.pad(one.mask, (width - one.mask.shape[1], 0)) for one in contexts])
    return Context(joined([one.cache for one in contexts]), mask, torch.cat([one.hidden for one in contexts]))


@cache
def _say(kind: str) -> None:
    logging.getLogger(__name__).warning(
        f"{kind} has an attention of its own, so prompts are padded and each answer keeps a copy of its prompt"
    )


def read_shared(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Context:
    """The context of prompts that their rows share, read in packs without padding; the model's attention must allow it."""
    sizes, device = [len(one) for one in prompts], model.device
    store = _Store(len(sizes), max(sizes))
    packs = packs_of(sizes)
    states = torch.cat([_read(model, prompts, pack, store) for pack in packs])
    order = torch.tensor([row for pack in packs for row in pack], device=device)
    lengths = torch.tensor(sizes, device=device)
    mask = (torch.arange(max(sizes), device=device) >= max(sizes) - lengths[:, None]).long()
    return Context(without_rows(store.keys, store.values, lengths), mask, states[order.argsort()])


def packs_of(sizes: Sequence[int]) -> list[list[int]]:
    """The prompts from short to long, in packs of at most `READ_TOKENS` tokens; a longer prompt is a pack of its own."""
    packs: list[list[int]] = []
    room = 0
    for row in sorted(range(len(sizes)), key=lambda row: (sizes[row], row)):
        if sizes[row] > room:
            packs.append([])
            room = max(READ_TOKENS, sizes[row])
        packs[-1].append(row)
        room -= sizes[row]
    return packs


def alike(pack: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """The prompts of a pack, which come from short to long, in groups of which none is longer than `SPREAD` allows."""
    groups: list[list[int]] = []
    for row in pack:
        if groups and sizes[row] <= SPREAD * sizes[groups[-1][0]]:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _by_column(states: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """Zeros of a shape, of which the last two dimensions lie in memory in the other order."""
    Q, H, width, E = shape
    return states.new_zeros(Q, H, E, width).transpose(2, 3)


class _Store:
    """The keys and values of Q prompts of at most `width` tokens, as they are read.

    In memory, the numbers of a key lie `width` apart, as the products with queries read them fastest.
    """

    def __init__(self, Q: int, width: int) -> None:
        self.Q, self.width = Q, width
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def put(self, layer: int, rows: Tensor, key: Float[Tensor, "B H T E"], value: Float[Tensor, "B H T F"]) -> None:
        """Stores the states of some prompts at a layer."""
        for layers, states in ((self.keys, key), (self.values, value)):
            if layer == len(layers):
                shape = self.Q, states.shape[1], self.width, states.shape[3]
                layers.append(states.new_zeros(shape) if layers is self.values else _by_column(states, shape))
            layers[layer][rows, :, : states.shape[2]] = states


def _gathered(states: Float[Tensor, "1 H T E"], grid: Int[Tensor, "B W"]) -> Float[Tensor, "B H W E"]:
    """The states of the tokens in a grid."""
    return states[0].transpose(0, 1).index_select(0, grid.flatten()).unflatten(0, grid.shape).transpose(1, 2)


def _read(model: PreTrainedModel, prompts: Sequence[Sequence[int]], pack: list[int], store: _Store) -> Float[Tensor, "N D"]:
    """The last hidden state of each prompt of a pack, whose keys and values are stored."""
    device, sizes = model.device, [len(one) for one in prompts]
    begin = dict(zip(pack, itertools.accumulate((sizes[row] for row in pack), initial=0), strict=False))
    batches, sources, base = list[tuple[Tensor, Tensor]](), torch.empty(sum(sizes[row] for row in pack), dtype=torch.long), 0
    for batch in alike(pack, sizes):
        columns = torch.arange(sizes[batch[-1]])
        inside = columns < torch.tensor([sizes[row] for row in batch])[:, None]
        grid = torch.where(inside, torch.tensor([begin[row] for row in batch])[:, None] + columns, 0)
        sources[grid[inside]] = base + inside.flatten().nonzero()[:, 0]
        base += grid.numel()
        batches.append((torch.tensor(batch, device=device), grid.to(device)))
    source, layer = sources.to(device), 0

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, scaling: float | None = None, **__: Any
    ) -> tuple[Tensor, None]:
        nonlocal layer
        parts = []
        for rows, grid in batches:
            q, k, v = (_gathered(states, grid) for states in (query, key, value))
            store.put(layer, rows, k, v)
            grouped = q.shape[1] != k.shape[1]
            out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
            parts.append(out.transpose(1, 2).flatten(0, 1))
        layer += 1
        return torch.cat(parts).index_select(0, source)[None], None

    ids = torch.tensor([token for row in pack for token in prompts[row]], device=device)
    positions = torch.cat([torch.arange(sizes[row]) for row in pack]).to(device)
    last = torch.tensor([begin[row] + sizes[row] - 1 for row in pack], device=device)
    with in_place_of_plain(model, attend), wanted_positions(model, last):
        body = model.get_decoder()
        return body(input_ids=ids[None], position_ids=positions[None], use_cache=False).last_hidden_state[0, last]
