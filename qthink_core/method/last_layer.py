"""A shorter last layer: keys and values for all positions, everything else only for the positions whose states are read.

In the last layer, a position's query, attention output and MLP affect only the last hidden state of that position. When
one state of a prompt is read, these parts need to run for one position only.
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
    """A context in which a pass of the model's body gives correct last hidden states for its last n positions only.

    The states of earlier positions are undefined. The parts of a layer are found by the names that Llama and related models
    use (`self_attn.q_proj`, `self_attn.o_proj`, `mlp`). A part with another name computes all positions, which is slower
    but gives the same states.
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
    """The hooks that make a part compute only the last n positions and pad its output with zeros in front."""
    left_out = 0

    def cut(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        nonlocal left_out
        left_out = inputs[0].shape[1] - n
        return inputs[0][:, -n:].contiguous(), *inputs[1:]  # mixtures of experts call `view` on it

    def fill(_: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return functional.pad(output, (0, 0, left_out, 0))

    return [part.register_forward_pre_hook(cut), part.register_forward_hook(fill)]
