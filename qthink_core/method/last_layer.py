"""A shorter last layer: keys and values for all positions, everything else only for the positions whose states are read.

In the last layer, a position's query, attention output and MLP affect only the last hidden state of that position. When
one state of a prompt is read, these parts need to run for one position only.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Int
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

    def cut(states: Tensor) -> Tensor:
        return states[:, -n:].contiguous()  # mixtures of experts call `view` on it

    def fill(states: Tensor, length: int) -> Tensor:
        return functional.pad(states, (0, 0, length - n, 0))

    with _shortened(model, cut, fill):
        yield


@contextmanager
def wanted_positions(model: PreTrainedModel, at: Int[Tensor, " N"]) -> Iterator[None]:
    """As `last_positions`, for the positions `at` of a single row."""

    def cut(states: Tensor) -> Tensor:
        return states[:, at]

    def fill(states: Tensor, length: int) -> Tensor:
        whole = states.new_zeros(1, length, states.shape[-1])
        whole[:, at] = states
        return whole

    with _shortened(model, cut, fill):
        yield


def last_layer(model: PreTrainedModel) -> nn.Module | None:
    """The last layer of a model's body; None where the body names its layers otherwise."""
    layers = getattr(model.get_decoder(), "layers", None)
    return layers[-1] if layers is not None else None


def attention_of(layer: nn.Module | None) -> nn.Module | None:
    """The attention of a layer; None where it has another name."""
    return getattr(layer, "self_attn", None)


@contextmanager
def _shortened(
    model: PreTrainedModel, cut: Callable[[Tensor], Tensor], fill: Callable[[Tensor, int], Tensor]
) -> Iterator[None]:
    """A context in which parts of the last layer compute what `cut` leaves of their input, and `fill` puts zeros back."""
    last = last_layer(model)
    attention = attention_of(last)
    parts = [getattr(attention, "q_proj", None), getattr(attention, "o_proj", None), getattr(last, "mlp", None)]
    hooks = [hook for part in parts if part is not None for hook in _hooks(part, cut, fill)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _hooks(part: nn.Module, cut: Callable[[Tensor], Tensor], fill: Callable[[Tensor, int], Tensor]) -> list[RemovableHandle]:
    length = 0

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        nonlocal length
        length = inputs[0].shape[1]
        return cut(inputs[0]), *inputs[1:]

    def after(_: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return fill(output, length)

    return [part.register_forward_pre_hook(before), part.register_forward_hook(after)]
