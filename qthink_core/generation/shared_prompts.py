"""A cache in which rows share the keys and values of their prompt, for decoding without gradients.

A row has keys and values of its own only for the tokens behind its prompt: latents and answer. So a prompt is read, kept and
attended to once for all of its completions and conditions, and rows that part or end move little memory. Keys and values
are not repeated for the query heads that share them, which took most of the time of a pass on a CPU.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from qthink_core.generation.roomy_cache import RoomyLayer
from qthink_core.method.attention import in_place_of_plain
from qthink_core.numerics.few_rows import product


class SharedPrompts:
    """The keys and values of Q prompts, and those that each of N rows has behind its prompt.

    `keys` and `values` have a tensor (Q, H, P, E) for each layer, padded on the right; `lengths` are the prompts' own. `own`
    has a layer for each of them. `slot` is the prompt of each row, and `start` the first of its own columns that is in use.
    """

    def __init__(
        self,
        keys: list[Float[Tensor, "Q H P E"]],
        values: list[Float[Tensor, "Q H P E"]],
        lengths: Int[Tensor, " Q"],
        slot: Int[Tensor, " N"],
        start: Int[Tensor, " N"],
        own: list[RoomyLayer],
    ) -> None:
        self.keys, self.values, self.lengths = keys, values, lengths
        self.slot, self.start, self.own = slot, start, own
        self.mine = False  # whether no other cache has the same tensors of prompts, so that they may be changed
        self._placed()

    @property
    def columns(self) -> int:
        """The number of own columns."""
        return self.own[0].keys.shape[2]

    def positions(self, new: int) -> Int[Tensor, "N T"]:
        """The positions of `new` tokens behind each row."""
        before = self.lengths[self.slot] + self.columns - self.start
        return before[:, None] + torch.arange(new, device=before.device)

    def batch_select_indices(self, indices: Int[Tensor, " N"]) -> None:
        """Keeps the given rows in the given order; a row may occur twice. Prompts without a row leave the cache."""
        for layer in self.own:
            layer.batch_select_indices(indices)
        self.slot, self.start = self.slot[indices], self.start[indices]
        alive = torch.zeros(len(self.lengths), dtype=torch.bool, device=indices.device)
        alive[self.slot] = True
        if not alive.all():
            self._keep(alive.nonzero()[:, 0])
        self._placed()

    def copy(self, rows: Int[Tensor, " M"]) -> "SharedPrompts":
        """A cache of some rows with all of the prompts: using one of the two does not change the other."""
        self.mine = False
        own = [_layer(one.keys[rows], one.values[rows]) for one in self.own]
        return SharedPrompts([*self.keys], [*self.values], self.lengths, self.slot[rows], self.start[rows], own)

    def _keep(self, prompts: Int[Tensor, " Q"]) -> None:
        """Keeps the given prompts, in ascending order: those behind the last place fill the places of those that leave."""
        n = len(prompts)
        moved = prompts[prompts >= n]
        free = torch.ones(n, dtype=torch.bool, device=prompts.device)
        free[prompts[prompts < n]] = False
        holes = free.nonzero()[:, 0]
        order = torch.arange(n, device=prompts.device)
        order[holes] = moved
        width = int(self.lengths[prompts].max())
        for layers in (self.keys, self.values):
            for number, states in enumerate(layers):
                if self.mine:
                    states[holes, :, :width] = states[moved, :, :width]
                    layers[number] = states[:n, :, :width]
                else:
                    layers[number] = states[order, :, :width]
        place = torch.empty_like(self.lengths)
        place[order] = torch.arange(n, device=prompts.device)
        self.mine, self.slot, self.lengths = True, place[self.slot], self.lengths[order]

    def _placed(self) -> None:
        """Finds the place of each row in a grid of prompts and their rows, of which some have fewer than others."""
        N, Q, device = len(self.slot), len(self.lengths), self.slot.device
        self.padding: Tensor | None = None
        width = self.keys[0].shape[2]
        if bool((self.lengths < width).any()):
            behind = torch.arange(width, device=device) >= self.lengths[:, None]
            self.padding = torch.zeros_like(behind, dtype=torch.float32).masked_fill(behind, -torch.inf)[:, None, None]
        self.grid: Tensor | None = None
        if N == Q and bool((self.slot == torch.arange(N, device=device)).all()):
            return
        by_prompt = self.slot.argsort(stable=True)
        n_rows = self.slot.bincount(minlength=Q)
        self.most = int(n_rows.max())
        first = n_rows.cumsum(0) - n_rows
        sorted_slot = self.slot[by_prompt]
        at = sorted_slot * self.most + torch.arange(N, device=device) - first[sorted_slot]
        self.grid, self.place = torch.zeros(Q * self.most, dtype=torch.long, device=device), torch.empty_like(by_prompt)
        self.grid[at], self.place[by_prompt] = by_prompt, at

    def by_prompt(self, rows: Float[Tensor, "N H M E"]) -> Float[Tensor, "Q H G E"]:
        """What belongs to the rows of each prompt, one behind the other, with anything in the places of missing rows."""
        if self.grid is None:
            return rows
        _, H, M, D = rows.shape
        return rows[self.grid].view(-1, self.most, H, M, D).transpose(1, 2).reshape(-1, H, self.most * M, D)

    def by_row(self, states: Float[Tensor, "Q H G E"]) -> Float[Tensor, "N H M E"]:
        """The inverse of `by_prompt`."""
        if self.grid is None:
            return states
        Q, H, M, D = states.shape
        return states.view(Q, H, self.most, M // self.most, D).transpose(1, 2).flatten(0, 1)[self.place]

    @contextmanager
    def attention(self, model: PreTrainedModel, new: int) -> Iterator[None]:
        """A context in which one pass of the model's body over `new` tokens a row attends to this cache and extends it."""
        layers = iter(zip(self.keys, self.values, self.own, strict=True))
        hidden = self._hidden(self.columns + new, new)

        def attend(
            module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, scaling: float | None = None, **__: Any
        ) -> tuple[Tensor, None]:
            keys, values, own = next(layers)
            return self._attend(query, keys, values, *own.update(key, value), hidden, scaling), None

        with in_place_of_plain(model, attend):
            yield

    def _attend(
        self,
        query: Float[Tensor, "N A T E"],
        prompt_keys: Float[Tensor, "Q H P E"],
        prompt_values: Float[Tensor, "Q H P F"],
        keys: Float[Tensor, "N H S E"],
        values: Float[Tensor, "N H S F"],
        hidden: Tensor | None,
        scaling: float | None,
    ) -> Float[Tensor, "N T A F"]:
        """Attention of the A query heads to the prompt and to the S own columns, of which the last T are new."""
        N, A, T, D = query.shape
        H, P, S = keys.shape[1], prompt_keys.shape[2], keys.shape[2]
        scaled = (query * (D**-0.5 if scaling is None else scaling)).reshape(N, H, A // H * T, D)
        behind = _scores(self.by_prompt(scaled), prompt_keys)
        if self.padding is not None:
            behind += self.padding
        own = _scores(scaled, keys)
        if hidden is not None:
            own = own.view(N, H, A // H, T, S).masked_fill_(hidden, -torch.inf).view(N, H, A // H * T, S)
        weights = torch.cat([self.by_row(behind), own], dim=-1).softmax(dim=-1).to(values.dtype)
        out = self.by_row(product(self.by_prompt(weights[..., :P]), prompt_values)) + product(weights[..., P:], values)
        return out.view(N, A, T, -1).transpose(1, 2)

    def _hidden(self, S: int, T: int) -> Tensor | None:
        """Which of S own columns each of T new tokens does not attend to; None: it attends to all."""
        columns = torch.arange(S, device=self.start.device)
        early = columns < self.start[:, None] if bool(self.start.any()) else None
        later = columns > torch.arange(S - T, S, device=columns.device)[:, None] if T > 1 else None
        if early is None:
            return later
        early = early[:, None, None, None]
        return early if later is None else early | later


def _scores(query: Float[Tensor, "B H M E"], keys: Float[Tensor, "B H C E"]) -> Float[Tensor, "B H M C"]:
    """Products of queries and keys, at least in float32."""
    wide = torch.promote_types(query.dtype, torch.float32)
    return product(query.to(wide), keys.to(wide).transpose(2, 3))


def without_rows(keys: list[Tensor], values: list[Tensor], lengths: Int[Tensor, " Q"]) -> SharedPrompts:
    """A cache of prompts with one row for each, in their order, and nothing behind them."""
    slot = torch.arange(len(lengths), device=lengths.device)
    own = [_layer(k[:, :, :0], v[:, :, :0]) for k, v in zip(keys, values, strict=True)]
    made = SharedPrompts(keys, values, lengths, slot, torch.zeros_like(slot), own)
    made.mine = True
    return made


def joined(caches: Sequence[SharedPrompts]) -> SharedPrompts:
    """The rows of caches of the same prompts, one cache after the other, which are not used any more."""
    first, width = caches[0], max(one.columns for one in caches)

    def whole(layer: int, which: str) -> Tensor:
        parts = [(one, getattr(one.own[layer], which)) for one in caches]
        return torch.cat([functional.pad(states, (0, 0, width - one.columns, 0)) for one, states in parts])

    own = [_layer(whole(layer, "keys"), whole(layer, "values")) for layer in range(len(first.own))]
    start = torch.cat([one.start + width - one.columns for one in caches])
    return SharedPrompts(first.keys, first.values, first.lengths, torch.cat([one.slot for one in caches]), start, own)


def _layer(keys: Float[Tensor, "N H S E"], values: Float[Tensor, "N H S F"]) -> RoomyLayer:
    layer = DynamicLayer()
    layer.keys, layer.values = keys, values
    return RoomyLayer(layer)
