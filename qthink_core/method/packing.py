"""Packs: sequences one after another without padding, cut into passes of the same size; no token is read twice.

Everything in a layer but its attention treats each token by itself, so a pass is one row for it. The attention of a part of
a sequence reads the keys and values of the tokens before it: of its prompt, which is read once for all sequences that begin
with it, and of the sequence itself where an earlier pass read its beginning. What the next pass needs of them is kept: at
most one sequence. Parts of similar size share a padded batch in the attention alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from qthink_core.method.attention import in_place_of_plain
from qthink_core.method.last_layer import attention_of, last_layer, wanted_positions

# How many times its size without padding an attention batch may have: padding is computed there, in place of more calls.
PADDED = 1.5


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


class Part(NamedTuple):
    """Tokens `start` to `stop` of a sequence, either of its prompt or of what follows it."""

    row: int
    start: int
    stop: int


class Span(NamedTuple):
    """Queries that attend to the same keys: query q sees the keys 0 to `sees[q]`.

    `queries` are tokens of the pass. `keys` are places among the kept keys and, after them, those of the pass; None where
    the kept ones are the keys.
    """

    queries: np.ndarray
    sees: np.ndarray
    keys: np.ndarray | None

    @property
    def n_keys(self) -> int:
        """The number of keys that the last query sees."""
        return int(self.sees[-1]) + 1


class Batch(NamedTuple):
    """Spans that attend together, padded; without a mask, query q sees the keys 0 to q."""

    queries: Int[Tensor, "B Q"]
    keys: Int[Tensor, "B C"] | tuple[None, slice]
    mask: Bool[Tensor, "B 1 Q C"] | None


class Attention(NamedTuple):
    """What a layer attends to: `source` has the place of each of R tokens in the concatenated outputs of the batches.

    `in_order`: there is one batch, and its outputs are those of the tokens as they are.
    """

    batches: list[Batch]
    source: Int[Tensor, " R"]
    in_order: bool


class Layout(NamedTuple):
    """A pass as arrays.

    `ids` and `positions` are those of its T tokens. The first `held` kept keys stand before those of the pass. `grows`: the
    first part, where an earlier pass read the beginning of its sequence; its keys are added to the kept ones. `kept`: the
    places of the keys to keep for the next pass, None where the kept ones already are those. The last layer attends from the
    tokens `read` alone. Of these, number `which[n]` is wanted for position `steps[n]` of sequence `rows[n]`.
    """

    ids: Int[Tensor, " T"]
    positions: Int[Tensor, " T"]
    held: int
    grows: slice | None
    kept: Int[Tensor, " C"] | None
    inner: Attention
    last: Attention
    read: Int[Tensor, " R"]
    which: Int[Tensor, " N"]
    rows: list[int]
    steps: list[int]


def passes(wanted: Sequence[Marked], batch_tokens: int) -> list[list[Part]]:
    """All sequences in passes of `batch_tokens` tokens, the last of which may have fewer.

    Each prompt is followed by what its sequences have after it, from long to short, so that parts of similar length meet. A
    sequence that does not end in its pass goes on in the next.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(wanted):
        by_prompt.setdefault(tuple(row.tokens[: row.prompt]), []).append(index)
    whole: list[Part] = []
    for prompt, members in by_prompt.items():
        whole.append(Part(members[0], 0, len(prompt)))
        ordered = sorted(members, key=lambda i: (-len(wanted[i].tokens), i))
        whole += [Part(index, len(prompt), len(wanted[index].tokens)) for index in ordered]
    made: list[list[Part]] = []
    room = 0
    for index, start, end in whole:
        while start < end:
            if not room:
                made.append([])
                room = batch_tokens
            stop = min(end, start + room)
            made[-1].append(Part(index, start, stop))
            room -= stop - start
            start = stop
    return made


def layout(
    wanted: Sequence[Marked],
    parts: Sequence[Part],
    following: Part | None,
    masked: bool = True,
    device: torch.device | str = "cpu",
) -> Layout:
    """The arrays of a pass, on a device; `following` is the part with which the next pass begins (`masked`: `attention`)."""
    first = parts[0]
    grows = first.start not in (0, wanted[first.row].prompt)
    held = min(first.start, wanted[first.row].prompt)
    prompt = np.arange(held)  # where the keys of the present prompt are
    ids, positions, read, rows, steps = (list[int]() for _ in range(5))
    inner, last = list[Span](), list[Span]()
    for row, start, stop in parts:
        here = np.arange(len(ids), len(ids) + stop - start)
        ids += wanted[row].tokens[start:stop]
        positions += range(start, stop)
        if start == 0:
            prompt = prompt[:0]
        keys = np.concatenate([prompt, held + here])
        inner.append(Span(here, np.arange(start, stop), None if grows and not inner else keys))
        if stop <= wanted[row].prompt:
            prompt = keys
        at = [(step, position) for step, position in enumerate(wanted[row].positions) if start <= position < stop]
        if at:
            rows += [row] * len(at)
            steps += [step for step, _ in at]
            read += [here[position - start] for _, position in at]
            seen = np.unique([position for _, position in at])
            last.append(Span(here[seen - start], seen, inner[-1].keys))
    if not last:  # models need not be able to compute nothing
        last = [Span(inner[0].queries[:1], inner[0].sees[:1], inner[0].keys)]
    kept = None
    if following is not None and not (grows and len(parts) == 1):
        kept = (prompt if following.start <= wanted[following.row].prompt else keys)[: following.start]
        kept = None if np.array_equal(kept, np.arange(held)[: following.start]) else kept
    at_R = np.concatenate([span.queries for span in last])
    on_device = partial(torch.as_tensor, device=device)
    return Layout(
        on_device(ids),
        on_device(positions),
        held,
        slice(first.start, first.stop) if grows else None,
        None if kept is None else on_device(kept),
        attention(inner, masked, device),
        attention(last, True, device),
        on_device(at_R),
        on_device(np.searchsorted(at_R, read)),
        rows,
        steps,
    )


def attention(spans: Sequence[Span], masked: bool, device: torch.device | str) -> Attention:
    """The attention batches of spans whose queries ascend from one to the next.

    With masks, queries are those of the spans alone. Without, there are as many queries as keys: kernels that know the order
    of tokens skip half of the work then, which those of GPUs do at all sizes and those of processors only at large ones.
    """
    batches, places, base = list[Batch](), dict[int, np.ndarray](), 0
    for group in alike(spans, masked):
        chosen = [spans[index] for index in group]
        C = max(one.n_keys for one in chosen)
        Q = max(len(one.queries) for one in chosen) if masked else C
        queries, sees, keys = (np.zeros((len(group), width), dtype=np.int64) for width in (Q, Q, C))
        for number, (index, one) in enumerate(zip(group, chosen, strict=True)):
            at = slice(0, len(one.queries)) if masked else one.sees
            queries[number, at], sees[number, at] = one.queries, one.sees
            places[index] = base + number * Q + np.arange(Q)[at]
            if one.keys is not None:
                keys[number] = np.resize(one.keys[: one.n_keys], C)  # its own also where no query sees them
        mask = torch.from_numpy(np.arange(C) <= sees[:, None, :, None]).to(device) if masked else None
        of_keys = (None, slice(0, C)) if chosen[0].keys is None else torch.from_numpy(keys).to(device)
        batches.append(Batch(torch.from_numpy(queries).to(device), of_keys, mask))
        base += queries.size
    source = np.concatenate([places[index] for index in range(len(spans))])
    in_order = len(batches) == 1 and np.array_equal(source, np.arange(batches[0].queries.numel()))
    return Attention(batches, torch.from_numpy(source).to(device), in_order)


def alike(spans: Sequence[Span], masked: bool) -> list[list[int]]:
    """The indices of spans, from few keys to many, in groups that padding makes at most `PADDED` times as large."""
    groups: list[list[int]] = []
    widest = area = 0
    for index in sorted(range(len(spans)), key=lambda i: (spans[i].n_keys, len(spans[i].queries), i)):
        one, C = spans[index], spans[index].n_keys
        Q = len(one.queries) if masked else C
        joins = groups and one.keys is not None and spans[groups[-1][0]].keys is not None
        if joins and (len(groups[-1]) + 1) * max(widest, Q) * C <= PADDED * (area + Q * C):
            groups[-1].append(index)
            widest, area = max(widest, Q), area + Q * C
        else:
            groups.append([index])
            widest, area = Q, Q * C
    return groups


def packed(
    model: PreTrainedModel, wanted: Sequence[Marked], batch_tokens: int
) -> Iterator[tuple[tuple[list[int], list[int]], Float[Tensor, "N D"]]]:
    """For each pass the sequences and numbers of the positions that it reads, and their last hidden states.

    The output head is not computed. The last layer computes everything but keys and values for these positions only.
    """
    todo = passes(wanted, batch_tokens)
    kept: dict[nn.Module, list[Tensor]] = {}
    room = max((parts[0].stop for parts in todo[1:]), default=0)
    masked = model.device.type == "cpu"
    for parts, after in zip(todo, [*(parts[0] for parts in todo[1:]), None], strict=False):
        made = layout(wanted, parts, after, masked, model.device)
        with torch.inference_mode(), _attention(model, made, kept, room), wanted_positions(model, made.read):
            found = model.get_decoder()(input_ids=made.ids[None], position_ids=made.positions[None], use_cache=False)
            states = found.last_hidden_state[0][made.read][made.which]
        yield (made.rows, made.steps), states


@contextmanager
def _attention(model: PreTrainedModel, made: Layout, kept: dict[nn.Module, list[Tensor]], room: int) -> Iterator[None]:
    """A context in which a model attends by the layout of a pass; `kept` has keys and values of `room` tokens by layer."""
    last = attention_of(last_layer(model))

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, scaling: float | None = None, **__: Any
    ) -> tuple[Tensor, None]:
        q, new = query[0].transpose(0, 1), [states[0].transpose(0, 1) for states in (key, value)]
        if room and module not in kept:
            kept[module] = [states.new_empty(room, *states.shape[1:]) for states in new]
        old = kept.get(module, [])
        if made.grows:
            for states, its in zip(old, new, strict=True):
                states[made.grows] = its[: made.grows.stop - made.grows.start]
        joined = made.held and len(made.inner.batches) > bool(made.grows)
        every = [torch.cat([states[: made.held], its]) for states, its in zip(old, new, strict=True)] if joined else new
        how = made.last if module is last else made.inner
        parts = []
        for batch in how.batches:
            k, v = (states[batch.keys].transpose(1, 2) for states in (old if isinstance(batch.keys, tuple) else every))
            asked = q[None] if how.in_order and how is made.inner else q[batch.queries]
            asked, causal, grouped = asked.transpose(1, 2), batch.mask is None, q.shape[1] != k.shape[1]
            out = functional.scaled_dot_product_attention(
                asked, k, v, batch.mask, 0.0, causal, scale=scaling, enable_gqa=grouped
            )
            parts.append(out.transpose(1, 2).flatten(0, 1))
        if made.kept is not None:
            for states, its in zip(old, every, strict=True):
                states[: len(made.kept)] = its[made.kept]
        out = parts[0] if how.in_order else torch.cat(parts)[how.source]
        if how is made.last:
            out = out.new_zeros(q.shape[0], *out.shape[1:]).index_copy_(0, made.read, out)
        return out[None], None

    with in_place_of_plain(model, attend):
        yield
