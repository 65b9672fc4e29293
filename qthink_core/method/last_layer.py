"""The last layer of a pass for the positions whose states are read; keys and values are those of all positions.

The rest of the last layer (a position's query, its attention output, the MLP) affects that position's own last hidden state
only. A prompt of which one state is read needs most of that layer for one position.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel


@contextmanager
def last_positions(model: PreTrainedModel, n: int) -> Iterator[None]:
    """Within it, a pass of the model's body gives the last hidden states of its last n positions; the others are undefined.

    The parts of a layer are found by the names that Llama and its relatives give them (`self_attn.q_proj`,
    `self_attn.o_proj`, `mlp`). A part with another name computes all positions, and the states are the same.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    last = layers[-1] if layers is not None else None
    attention = getattr(last, "self_attn", None)
    parts = [getattr(attention, "q_proj", None), getattr(attention, "o_proj", None), getattr(last, "mlp", None)]
    hooks = [hook for part in parts if part is not None for hook in _shortened(part, n)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _shortened(part: nn.Module, n: int) -> list[RemovableHandle]:
    """Hooks by which a part computes the last n positions and puts zeros before them."""
    left_out = 0

    def cut(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        nonlocal left_out
        left_out = inputs[0].shape[1] - n
        return inputs[0][:, -n:].contiguous(), *inputs[1:]  # mixtures of experts take a view of it

    def fill(_: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return functional.pad(output, (0, 0, left_out, 0))

    return [part.register_forward_pre_hook(cut), part.register_forward_hook(fill)]
