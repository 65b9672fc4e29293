"""The model of a scale, where it computes, and the sizes that its parameters give."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from qthink_core.benchmarking.timing import Device
from qthink_core.errors import ParamError
from qthink_core.models.base_params import Base
from qthink_core.planning import shapes
from qthink_core.planning.cost import Shape


class Scale(NamedTuple):
    """A scale's name and the shape of its base model; whether it merges LoRA; the `sizes` that its parameters set."""

    name: str
    shape: Shape
    merged: bool
    on: Device
    sizes: dict[str, Any]


def of_scale(name: str, tree: Mapping[str, Any]) -> Scale:
    """The scale with checked parameters; raises ParamError where it needs a GPU and there is none."""
    on = Device(tree["device"], tree["dtype"], tree["cpu_threads"])
    if on.name == "cuda" and not torch.cuda.is_available():
        raise ParamError(f"params/{name}.yaml has device: cuda, and this machine has no GPU: measure where the scale runs")
    sizes = {"batch_tokens": tree["extract"]["batch_tokens"], "micro_batch": tree["train"]["micro_batch"]}
    shape = shapes.of_base(Base.model_validate(tree["base"]), None)
    return Scale(name, shape, tree["train"]["lora"]["merged"], on, sizes)
