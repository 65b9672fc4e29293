"""LoRA merged into the weights: y = x (W + s B A)^T at every call, with W + s B A computed once per micro-batch.

With g = dL/dy, summed over all calls of a layer:

    dL/dx = g (W + s B A),    dL/dB = s g^T (x A^T),    dL/dA = s (g B)^T x

A call takes two products with the whole weight and four with a narrow matrix, of rank r, where PEFT's layers take six narrow
ones and add their results. Calls with few tokens, such as latent steps, leave their x and g for one product at the end. A
layer so small that the gradient of its whole weight is less work gets A's and B's through that. Outputs and gradients are
those of PEFT up to rounding. The products with weights are those of `numerics.products.fixed`. Merging needs memory for two
copies of the adapted weights. With a base model in bfloat16, the merged weight is rounded to bfloat16.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from qthink_core.numerics.products import fixed, over_rows

ADAPTER = "default"
# Calls with at most so many tokens are gathered: their products alone would be too small to be fast.
# Not a parameter, as it changes gradients by rounding alone (docs/decisions/engineering.md, Passes).
FEW = 64


def merge(layer: Linear) -> tuple[Tensor, Tensor | None]:
    """W + s B A in the dtype of W, and the bias."""
    weights = dict(layer.get_base_layer().named_parameters())
    return (weights["weight"] + layer.get_delta_weight(ADAPTER)).to(weights["weight"].dtype), weights.get("bias")


class _Layer:
    """A layer's products with its merged weight, and the gradients of A and B as far as the backward pass has come."""

    def __init__(self, layer: Linear) -> None:
        A, B = (part[ADAPTER].get_parameter("weight").detach() for part in (layer.lora_A, layer.lora_B))
        self.dtype = A.dtype
        self.scale: float = layer.scaling[ADAPTER]
        self.by_A, self.by_B = fixed(A), fixed(B.T)
        with torch.no_grad():
            merged, bias = merge(layer)
            self.times, self.back = fixed(merged, bias), fixed(merged.T)
        self.of_A: Tensor | None = None
        self.of_B: Tensor | None = None
        self.few: list[tuple[Tensor, Tensor]] = []

    def add(self, x: Tensor, g: Tensor) -> None:
        """Adds (g B)^T x and g^T (x A^T), in the dtype of the adapters."""
        x, g = x.to(self.dtype), g.to(self.dtype)
        narrow_g, narrow_x = self.by_B(g), self.by_A(x)
        of_A, of_B = over_rows(x, narrow_g).T, over_rows(g, narrow_x)
        if self.of_A is None or self.of_B is None:
            self.of_A, self.of_B = of_A, of_B
        else:
            self.of_A += of_A
            self.of_B += of_B


class _Merge(Function):
    """From A and B to a token that every call of the layer takes, so that this backward pass comes after all of theirs."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, B: Tensor, layer: _Layer) -> Tensor:
        ctx.layer = layer
        return A.new_empty(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *_: Any) -> tuple[Tensor | None, ...]:
        layer: _Layer = ctx.layer
        if layer.few:
            xs, gs = zip(*layer.few, strict=True)
            layer.add(torch.cat(xs), torch.cat(gs))
        found = [None if one is None else one.mul_(layer.scale) for one in (layer.of_A, layer.of_B)]
        layer.few, layer.of_A, layer.of_B = [], None, None
        return *found, None


class _Multiply(Function):
    """x (W + s B A)^T + bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, layer: _Layer) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x)
        return layer.times(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        layer: _Layer = ctx.layer
        (x,), (of_y,) = ctx.saved_tensors, gradients
        rows, g = x.flatten(0, -2), of_y.flatten(0, -2)
        if len(rows) > FEW:
            layer.add(rows, g)
        else:
            layer.few.append((rows, g))
        return layer.back(g).view_as(x) if ctx.needs_input_grad[0] else None, None, None


def narrow_is_less(layer: Linear) -> bool:
    """Whether a token takes fewer products for both narrow gradients, 2 r (inputs + outputs), than for that of W."""
    weight = layer.get_base_layer().get_parameter("weight")
    return 2 * layer.r[ADAPTER] * sum(weight.shape) < weight.numel()


def _narrow(layer: Linear) -> Callable[[Tensor], Tensor]:
    merged = _Layer(layer)
    token = _Merge.apply(layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight, merged)
    return partial(_multiply, token=token, layer=merged)


def _multiply(x: Tensor, token: Tensor, layer: _Layer) -> Tensor:
    return _Multiply.apply(x, token, layer)


def _whole(layer: Linear) -> Callable[[Tensor], Tensor]:
    merged, bias = merge(layer)
    return partial(functional.linear, weight=merged, bias=bias)


@contextmanager
def merged_weights(adapted: nn.Module) -> Iterator[None]:
    """A context in which each adapted layer multiplies by its merged weight.

    Layers of PEFT that adapt another kind than `torch.nn.Linear` are left as they are. Parameters and their names do not
    change, and at the end the layers compute as before.
    """
    layers = [one for one in adapted.modules() if isinstance(one, Linear) and type(one.get_base_layer()) is nn.Linear]
    try:
        for layer in layers:
            vars(layer)["forward"] = _narrow(layer) if narrow_is_less(layer) else _whole(layer)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)
