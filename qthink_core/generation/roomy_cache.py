"""A key/value cache with room to grow, for decoding without gradients.

`DynamicCache` allocates and copies the whole cache at every token, which took 84 % of the time of sampling with a small
model on a CPU. Here, a layer has buffers with spare columns and returns views of them; the values are the same.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

SPARE_TOKENS = 64


class RoomyLayer(DynamicLayer):
    """A layer whose buffers grow by `SPARE_TOKENS` columns when they are full; `keys` and `values` are views of them."""

    keys: Tensor
    values: Tensor

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        assert layer.keys is not None, "read the prompt before a layer gets room"
        assert layer.values is not None, "keys come with values"
        self.lazy_initialization(layer.keys, layer.values)
        self._adopt(layer.keys, layer.values)

    def _adopt(self, keys: Tensor, values: Tensor, spare_rows: int = 0) -> None:
        """Copies states (B, H, S, D) into buffers with spare columns and rows."""
        B, H, S, _ = keys.shape
        self.buffers = tuple(
            states.new_empty(B + spare_rows, H, S + SPARE_TOKENS, states.shape[-1]) for states in (keys, values)
        )
        for buffer, states in zip(self.buffers, (keys, values), strict=True):
            buffer[:B, :, :S] = states
        self._show(B, S)

    def _show(self, rows: int, length: int) -> None:
        self.keys, self.values = (buffer[:rows, :, :length] for buffer in self.buffers)

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Appends the new states and returns all of them."""
        rows, length, new = len(self.keys), self.keys.shape[-2], key_states.shape[-2]
        if length + new > self.buffers[0].shape[-2]:
            self._adopt(torch.cat([self.keys, key_states], -2), torch.cat([self.values, value_states], -2))
        else:
            for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
                buffer[:rows, :, length : length + new] = states
            self._show(rows, length + new)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps the given rows in the given order; a row may occur twice. Only rows that change their place are copied.

        The memory of removed rows is freed the next time that the buffers grow.
        """
        rows, length = len(indices), self.keys.shape[-2]
        if rows > len(self.buffers[0]):
            self._adopt(self.keys[indices], self.values[indices], spare_rows=rows // 2)
            return
        moved = (indices != torch.arange(rows, device=indices.device)).nonzero()[:, 0]
        for buffer in self.buffers:
            buffer[moved, :, :length] = buffer[indices[moved], :, :length]
        self._show(rows, length)


def with_room(cache: Any) -> Any:
    """The same cache with room to grow in every plain layer; layers of other kinds (sliding windows) are not changed.

    A cache that is not of transformers makes room by itself.
    """
    if not isinstance(cache, DynamicCache):
        return cache
    cache.layers = [RoomyLayer(layer) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
