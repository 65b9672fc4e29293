"""LoRA merged into the weights during a forward pass: W + s B A once, instead of x A^T B^T at every call.

Outputs and gradients are the same up to rounding. Merging is faster where calls are small: a latent step of a small model
launches many operations on few numbers. It needs memory for a copy of the adapted weights and its gradient. With a base
model in bfloat16, the merged weight is rounded to bfloat16.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from peft.tuners.lora import Linear
from torch import nn

ADAPTER = "default"


@contextmanager
def merged_weights(adapted: nn.Module) -> Iterator[None]:
    """A context in which each adapted layer multiplies by its merged weight; gradients reach A and B through that weight.

    A layer with an entry in PEFT's `merged_adapters` calls its base layer only. At the end, the parameters and their names
    are restored.
    """
    layers = [layer for layer in adapted.modules() if isinstance(layer, Linear)]
    kept = [layer.get_base_layer().get_parameter("weight") for layer in layers]
    try:
        for layer, weight in zip(layers, kept, strict=True):
            delta = layer.get_delta_weight(ADAPTER)
            del layer.base_layer.weight  # a module refuses a plain tensor under the name of a parameter
            layer.base_layer.weight = (weight + delta).to(weight.dtype)
            layer.merged_adapters.append(ADAPTER)
        yield
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer.base_layer.weight = weight
            layer.merged_adapters.clear()
