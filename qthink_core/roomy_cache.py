"""A key/value cache with room to grow, for decoding without gradients.

`DynamicCache` concatenates, and so allocates and copies the whole cache at every token: 84 % of the time of sampling with
a small model on a CPU. Here a layer owns buffers with spare columns and hands out views; the values are the same.
"""

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

SPARE_TOKENS = 64


class RoomyLayer(DynamicLayer):
    """A layer whose buffers gain `SPARE_TOKENS` columns whenever they are full; `keys` and `values` are views."""

    keys: Tensor
    values: Tensor

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        assert layer.keys is not None, "a layer gets room after the prompt was read"
        assert layer.values is not None, "keys come with values"
        self.lazy_initialization(layer.keys, layer.values)
        self._adopt(layer.keys, layer.values)

    def _adopt(self, keys: Tensor, values: Tensor) -> None:
        """Copies states (B, H, S, D) into buffers with spare columns."""
        length, shape = keys.shape[-2], (*keys.shape[:-2], keys.shape[-2] + SPARE_TOKENS, keys.shape[-1])
        self.buffers = keys.new_empty(shape), values.new_empty(shape)
        for buffer, states in zip(self.buffers, (keys, values), strict=True):
            buffer[..., :length, :] = states
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (buffer[..., :length, :] for buffer in self.buffers)

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Appends the new states and returns all of them."""
        length, new = self.keys.shape[-2], key_states.shape[-2]
        if length + new > self.buffers[0].shape[-2]:
            self._adopt(torch.cat([self.keys, key_states], -2), torch.cat([self.values, value_states], -2))
        else:
            self.buffers[0][..., length : length + new, :] = key_states
            self.buffers[1][..., length : length + new, :] = value_states
            self._show(length + new)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps only these rows."""
        length = self.keys.shape[-2]
        self.buffers = self.buffers[0][indices], self.buffers[1][indices]
        self._show(length)


def with_room(cache: DynamicCache) -> DynamicCache:
    """The same cache with room in every plain layer; layers of another kind (sliding windows) stay as they are."""
    cache.layers = [RoomyLayer(layer) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
