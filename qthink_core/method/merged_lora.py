"""LoRA merged into the weights during a forward pass: W + s B A once, instead of x A^T B^T at every call.

Function and gradient are the same up to rounding. This is faster where a call is small: a latent step of a small model
launches many operations on few numbers. It costs a copy of the adapted weights and their gradient, and where the base is
bfloat16, the merged weight is rounded to it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from peft.tuners.lora import Linear
from torch import nn

ADAPTER = "default"


@contextmanager
def merged_weights(adapted: nn.Module) -> Iterator[None]:
    """Within it, each adapted layer multiplies by its merged weight, through which gradients reach A and B.

    PEFT's `merged_adapters` makes the layer call its base layer alone. Parameters and their names are as before afterwards.
    """
    layers = [layer for layer in adapted.modules() if isinstance(layer, Linear)]
    kept = [layer.get_base_layer().get_parameter("weight") for layer in layers]
    try:
        for layer, weight in zip(layers, kept, strict=True):
            delta = layer.get_delta_weight(ADAPTER)
            del layer.base_layer.weight  # a module takes a tensor that is not a parameter only under a free name
            layer.base_layer.weight = (weight + delta).to(weight.dtype)
            layer.merged_adapters.append(ADAPTER)
        yield
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer.base_layer.weight = weight
            layer.merged_adapters.clear()
