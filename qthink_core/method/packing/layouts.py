"""Layouts: the tokens of a pass as arrays, and who attends to what.

Everything in a layer but its attention treats each token by itself, so a pass is one row for it. The attention of a part of
a sequence reads the keys and values of the tokens before it: of its prompt, which is read once for all sequences that begin
with it, and of the sequence itself where an earlier pass read its beginning. What the next pass needs of them is kept: at
most one sequence. Parts of similar size share a padded batch in the attention alone.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from qthink_core.method.packing.windows import Marked, Part

# How many times its size without padding an attention batch may have: padding is computed there, in place of more calls.
# Not a parameter, as it changes states by rounding alone (docs/decisions/engineering.md, Passes).
PADDED = 1.5


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
    """Spans that attend together, padded: query q of a span sees its keys 0 to `sees[q]`, or 0 to q where that is None."""

    queries: Int[Tensor, "B Q"]
    keys: Int[Tensor, "B C"] | tuple[None, slice]
    n_keys: int
    sees: Int[Tensor, "B Q"] | None

    def mask(self) -> Bool[Tensor, "B 1 Q C"] | None:
        """True where a query sees a key; None where query q sees the keys 0 to q."""
        if self.sees is None:
            return None
        return torch.arange(self.n_keys, device=self.sees.device) <= self.sees[:, None, :, None]


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
    tokens `read` alone. Of these, number `which[n]` is wanted for position `steps[n]` of sequence `rows[n]`. The next
    pass begins with `carried` tokens of its first sequence read.
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
    carried: int


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
        0 if following is None else following.start,
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
        of_keys = (None, slice(0, C)) if chosen[0].keys is None else torch.from_numpy(keys).to(device)
        seen = torch.from_numpy(sees).to(device) if masked else None
        batches.append(Batch(torch.from_numpy(queries).to(device), of_keys, C, seen))
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
