"""Packs: many sequences in one row of tokens without padding, in which a prompt that several of them share is read once.

Everything in a layer but its attention treats each token by itself, so a pack is one row for it. The attention computes
each sequence from its prompt and its own tokens: sequences of similar length are gathered into a padded batch, and the
outputs of its tokens are taken from there. Only attention computes padding, and a shared prompt again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from qthink_core.method.last_layer import wanted_positions

# The names by which transformers know this attention and the one that it stands in for.
PACKED, PLAIN = "qthink_packed", "sdpa"
FULL = "full_attention"
# The longest sequence of an attention batch against its shortest: padding is computed there, in place of more calls.
SPREAD = 1.25


@runtime_checkable
class Marked(Protocol):
    """A sequence of tokens, the positions in it whose states are read, and its name in error messages.

    Its first `prompt` tokens are read once for all sequences that begin with the same; no position lies in them.
    """

    @property
    def name(self) -> str: ...
    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def positions(self) -> Sequence[int]: ...
    @property
    def prompt(self) -> int: ...


class Pack(NamedTuple):
    """The indices of sequences in one pack, and by prompt those that share it."""

    members: list[int]
    groups: list[list[int]]


class Layout(NamedTuple):
    """A pack as arrays.

    `ids` and `positions` are those of its T tokens, and `wanted` the indices of the K tokens of each of its N sequences.
    Each of `batches` has the tokens of sequences of similar length, padded with index 0 on the right. `source` is the place
    of each token in the concatenated outputs of these batches.
    """

    ids: Int[Tensor, " T"]
    positions: Int[Tensor, " T"]
    wanted: Int[Tensor, "N K"]
    batches: list[Tensor]
    source: Int[Tensor, " T"]


def can_pack(model: PreTrainedModel) -> bool:
    """Whether all layers of a model attend to all earlier tokens through the interface of transformers.

    Others are read in padded batches: sliding windows, capped attention (Gemma 2), attention code of their own.
    """
    config = model.config
    plain = all(getattr(config, name, None) is None for name in ("sliding_window", "attn_logit_softcapping"))
    full = set(getattr(config, "layer_types", None) or [FULL]) == {FULL}
    return bool(model._supports_attention_backend) and config._attn_implementation == PLAIN and plain and full


def packs(wanted: Sequence[Marked], batch_tokens: int) -> list[Pack]:
    """All sequences in packs of at most `batch_tokens` tokens; a sequence that is longer is a pack of its own.

    The sequences of one prompt are in one pack if they fit, and otherwise in packs that no other prompt is in.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(wanted):
        by_prompt.setdefault(tuple(row.tokens[: row.prompt]), []).append(index)
    made: list[Pack] = []
    room = 0
    for prompt, members in by_prompt.items():
        own = {index: len(wanted[index].tokens) - len(prompt) for index in members}
        size = len(prompt) + sum(own.values())
        if size <= batch_tokens:
            if size > room or not made:
                made.append(Pack([], []))
                room = batch_tokens
            made[-1].members.extend(members)
            made[-1].groups.append(members)
            room -= size
            continue
        # from long to short, so that sequences of similar length share an attention batch
        for index in sorted(members, key=lambda i: (-own[i], i)):
            if not made or room < own[index] or made[-1].groups[0][0] not in own:
                made.append(Pack([], [[]]))
                room = batch_tokens - len(prompt)
            made[-1].members.append(index)
            made[-1].groups[0].append(index)
            room -= own[index]
        room = 0
    return made


def layout(wanted: Sequence[Marked], pack: Pack, device: torch.device | str = "cpu") -> Layout:
    """The arrays of a pack, on a device."""
    ids, positions = list[int](), list[int]()
    indices: dict[int, np.ndarray] = {}
    reads: dict[int, int] = {}  # the first sequence of each prompt, whose attention gives the prompt's outputs
    for group in pack.groups:
        first = wanted[group[0]]
        shared = np.arange(first.prompt) + len(ids)
        ids += first.tokens[: first.prompt]
        positions += range(first.prompt)
        reads[group[0]] = first.prompt
        for index in group:
            row = wanted[index]
            own = np.arange(len(row.tokens) - row.prompt) + len(ids)
            ids += row.tokens[row.prompt :]
            positions += range(row.prompt, len(row.tokens))
            indices[index] = np.concatenate([shared, own])
    source, batches, base = np.empty(len(ids), dtype=np.int64), list[np.ndarray](), 0
    for batch in alike(pack.members, {index: len(found) for index, found in indices.items()}):
        width = len(indices[batch[-1]])
        at = np.zeros((len(batch), width), dtype=np.int64)
        for number, index in enumerate(batch):
            found, row = indices[index], wanted[index]
            at[number, : len(found)] = found
            start = 0 if index in reads else row.prompt
            source[found[start:]] = base + number * width + np.arange(start, len(found))
        batches.append(at)
        base += at.size
    at_NK = np.stack([indices[index][list(wanted[index].positions)] for index in pack.members])
    arrays = [torch.from_numpy(one).to(device) for one in (np.array(ids), np.array(positions), at_NK, source, *batches)]
    return Layout(arrays[0], arrays[1], arrays[2], arrays[4:], arrays[3])


def alike(members: Sequence[int], lengths: dict[int, int]) -> list[list[int]]:
    """The members from short to long, in groups in which none is longer than `SPREAD` times the shortest."""
    groups: list[list[int]] = []
    for index in sorted(members, key=lambda i: (lengths[i], i)):
        if groups and lengths[index] <= SPREAD * lengths[groups[-1][0]]:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def packed_states(model: PreTrainedModel, pack: Layout) -> Float[Tensor, "N K D"]:
    """The last hidden states of a pack's sequences at their positions; the output head is not computed.

    The last layer computes everything but keys, values and attention for these positions only.
    """
    read, which = pack.wanted.flatten().unique(return_inverse=True)
    with _attention(model, pack), wanted_positions(model, read):
        hidden = model.get_decoder()(
            input_ids=pack.ids[None], position_ids=pack.positions[None], use_cache=False
        ).last_hidden_state[0]
    return hidden[read][which].view(*pack.wanted.shape, -1)


@contextmanager
def _attention(model: PreTrainedModel, pack: Layout) -> Iterator[None]:
    """A context in which a model attends by the layout of a pack."""

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, scaling: float | None = None, **__: Any
    ) -> tuple[Tensor, None]:
        by_token = [states[0].transpose(0, 1) for states in (query, key, value)]
        parts = []
        for batch in pack.batches:
            q, k, v = (states[batch].transpose(1, 2) for states in by_token)
            grouped = q.shape[1] != k.shape[1]
            out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
            parts.append(out.transpose(1, 2).flatten(0, 1))
        return torch.cat(parts)[pack.source][None], None

    ALL_ATTENTION_FUNCTIONS.register(PACKED, attend)
    model.config._attn_implementation = PACKED
    try:
        yield
    finally:
        model.config._attn_implementation = PLAIN
