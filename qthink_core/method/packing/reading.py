"""Reading packs layer by layer: all passes of a window go through a layer before any goes through the next.

So the keys and values of one layer are kept at a time, with the hidden states of the window. Only those of a prompt that
the next window goes on with are kept for each layer.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from qthink_core.method.attention import in_place_of_plain
from qthink_core.method.last_layer import attention_of, last_layer, wanted_positions
from qthink_core.method.packing.layouts import Attention, Layout, layout
from qthink_core.method.packing.windows import Marked, windows


def packed(
    model: PreTrainedModel, wanted: Sequence[Marked], batch_tokens: int
) -> Iterator[tuple[tuple[list[int], list[int]], Float[Tensor, "N D"]]]:
    """For each window the sequences and numbers of the positions that it reads, and their last hidden states.

    The output head is not computed. The last layer computes everything but keys and values for these positions only.
    """
    todo = windows(wanted, batch_tokens)
    firsts = [parts[0] for window in todo for parts in window]
    room = max((first.stop for first in firsts[1:]), default=0)
    following = iter([*firsts[1:], None])
    reader = _Reader(model, room)
    for window in todo:
        made = [layout(wanted, parts, next(following), model.device.type == "cpu", model.device) for parts in window]
        yield ([row for one in made for row in one.rows], [step for one in made for step in one.steps]), reader.read(made)


class _Reader:
    """Reads one window after the other; between them it holds the prompts' keys and values by layer."""

    def __init__(self, model: PreTrainedModel, room: int) -> None:
        self.model, self.room = model, room
        self.last = last_layer(model)
        self.prompts: dict[nn.Module, list[Tensor]] = {}
        self.kept: list[Tensor] = []  # keys and values of `room` tokens of the present layer
        self.window: list[Layout] = []
        self.number = 0  # of the present pass in its window

    def read(self, window: list[Layout]) -> Float[Tensor, "N D"]:
        """The last hidden states of the positions that a window's passes read."""
        self.window = window
        ids, positions = (
            torch.cat(parts)[None] for parts in zip(*((one.ids, one.positions) for one in window), strict=True)
        )
        with torch.inference_mode(), in_place_of_plain(self.model, self.attend), self._by_layer():
            states = self.model.get_decoder()(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state[0]
            by_pass = states.split([len(one.read) for one in window])
            return torch.cat([read[one.which] for one, read in zip(window, by_pass, strict=True)])

    @contextmanager
    def _by_layer(self) -> Iterator[None]:
        """A context in which each layer computes a window pass by pass; the last gives the tokens that are read alone."""
        with ExitStack() as undo:
            layers = self.model.get_decoder().layers
            for layer in layers:
                forward = layer.forward
                vars(layer)["forward"] = partial(self._layer, forward, layer is layers[0], layer is layers[-1])
                undo.callback(vars(layer).pop, "forward")
            yield

    def _layer(
        self,
        forward: Callable[..., Tensor],
        first: bool,
        last: bool,
        hidden: Float[Tensor, "1 T D"],
        *args: Any,
        **named: Any,
    ) -> Float[Tensor, "1 R D"]:
        T, start, found = hidden.shape[1], 0, list[Tensor]()
        # the embeddings may be those of the body, which goes on with them; a layer's output has no other use
        out = torch.empty_like(hidden) if first and not last else hidden
        for number, one in enumerate(self.window):
            self.number = number
            here = slice(start, start + len(one.ids))
            start = here.stop
            with wanted_positions(self.model, one.read) if last else nullcontext():
                states = forward(hidden[:, here], *_of(args, here, T), **_of(named, here, T))
            if last:
                found.append(states[:, one.read])
            else:
                out[:, here] = states
        return torch.cat(found, dim=1) if last else out

    def attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, scaling: float | None = None, **__: Any
    ) -> tuple[Tensor, None]:
        """The attention of the present pass in a layer, in the interface of transformers."""
        made, after = self.window[self.number], self.number + 1 == len(self.window)
        q, new = query[0].transpose(0, 1), [states[0].transpose(0, 1) for states in (key, value)]
        if self.number == 0:
            self._begin(module, new)
        old = self.kept
        if made.grows:
            for states, its in zip(old, new, strict=True):
                states[made.grows] = its[: made.grows.stop - made.grows.start]
        joined = made.held and len(made.inner.batches) > bool(made.grows)
        every = [torch.cat([states[: made.held], its]) for states, its in zip(old, new, strict=True)] if joined else new
        is_last = module is attention_of(self.last)
        how = made.last if is_last else made.inner
        out = _attended(how, q, old, every, scaling, how.in_order and not is_last)
        if made.kept is not None:
            for states, its in zip(old, every, strict=True):
                states[: len(made.kept)] = its[made.kept]
        if after:
            self.prompts[module] = [states[: made.carried].clone() for states in old]
        if is_last:
            out = out.new_zeros(q.shape[0], *out.shape[1:]).index_copy_(0, made.read, out)
        return out[None], None

    def _begin(self, module: nn.Module, new: list[Tensor]) -> None:
        """Room for the keys and values of a layer, with those of the prompt that the window goes on with."""
        shapes = [(self.room, *states.shape[1:]) for states in new] if self.room else []
        if [tuple(states.shape) for states in self.kept] != shapes:
            self.kept = [states.new_empty(shape) for states, shape in zip(new, shapes, strict=False)]
        for states, held in zip(self.kept, self.prompts.get(module, []), strict=False):
            states[: len(held)] = held


def _attended(
    how: Attention, q: Tensor, old: list[Tensor], every: list[Tensor], scaling: float | None, whole: bool
) -> Float[Tensor, "R A E"]:
    parts = []
    for batch in how.batches:
        k, v = (states[batch.keys].transpose(1, 2) for states in (old if isinstance(batch.keys, tuple) else every))
        asked = (q[None] if whole else q[batch.queries]).transpose(1, 2)
        mask, grouped = batch.mask(), q.shape[1] != k.shape[1]
        out = functional.scaled_dot_product_attention(
            asked, k, v, mask, 0.0, mask is None, scale=scaling, enable_gqa=grouped
        )
        parts.append(out.transpose(1, 2).flatten(0, 1))
    return parts[0] if how.in_order else torch.cat(parts)[how.source]


def _of(given: Any, here: slice, T: int) -> Any:
    """What a layer is given for the tokens `here` of a window of T: tensors whose second axis is that of tokens are cut."""
    if isinstance(given, Tensor):
        return given[:, here] if given.ndim > 1 and given.shape[1] == T else given
    if isinstance(given, dict):
        return {name: _of(one, here, T) for name, one in given.items()}
    return type(given)(_of(one, here, T) for one in given) if isinstance(given, tuple | list) else given
