"""Products of linear layers by oneDNN, with weights that are put in the order of its kernels once.

Torch computes a linear layer in float32 by MKL, which has no kernels for AVX-512 on AMD processors: on an EPYC of family 26,
oneDNN was 2.3 times as fast from 16 rows on (docs/decisions/engineering.md, Passes).
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

# oneDNN is asked for the order that suits this number of rows; the same order is fast for any other.
ROWS = 64
# With `few_sizes`, up to so many rows are as many, and more rows are a multiple of ROWS.
FEW = 16
# Of the largest value, for sums in another order over some hundred numbers.
ROUNDING = 1e-5


@contextmanager
def reordered(*models: nn.Module, moved: bool = False, few_sizes: bool = False) -> Iterator[None]:
    """A context in which the linear layers of models that do not change compute by oneDNN, where that is faster.

    It holds for layers in float32 on a processor with AVX-512, and only in inference mode, because no gradient flows through
    these products. `cpu_kernels: avx2` leaves all products to MKL, as its promise of equal bytes has been tested with that.
    The weights in the other order take as much memory again, unless they are `moved`: a layer that shares its weights with
    no other then has none in the context, and the same numbers again after it.

    oneDNN keeps code for each number of rows and shape of weights, 0.6 MiB. With `few_sizes`, rows of zeros are added up to
    one of few numbers, so that passes of many sizes do not take more and more memory. A row's result is the same.
    """
    with ExitStack() as undo:
        holders = Counter(id(one) for model in models for _, one in model.named_parameters(remove_duplicate=False))
        for layer in _layers(models):
            weight = _in_order(layer.weight.detach())
            undo.enter_context(_computing(layer, weight, _in_few_sizes if few_sizes else _product))
            if moved and holders[id(layer.weight)] == 1:
                layer.weight.data = layer.weight.new_empty(0)
                undo.callback(_give_back, layer, weight)
        yield


class Reordered:
    """The weights of models that do not change any more, put in the other order once for many contexts of `used`."""

    def __init__(self, *models: nn.Module) -> None:
        self.weights = [(layer, _in_order(layer.weight.detach())) for layer in _layers(models)]

    @contextmanager
    def used(self) -> Iterator[None]:
        """A context as that of `reordered`."""
        with ExitStack() as undo:
            for layer, weight in self.weights:
                undo.enter_context(_computing(layer, weight))
            yield


def fixed(weight: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """The product x W^T + bias with a weight that does not change, by oneDNN where that is faster.

    It is to be called without autograd: who calls it computes the gradient. By oneDNN it holds a copy of the weight.
    """
    if not _suits(weight):
        return partial(functional.linear, weight=weight, bias=bias)
    return partial(_without_autograd, _in_order(weight.contiguous()), bias)


def over_rows(wide: Tensor, narrow: Tensor) -> Tensor:
    """The sum over rows W^T N of a wide and a narrow matrix, without autograd, by oneDNN where that is faster."""
    if not _suits(wide) or narrow.dtype != torch.float32:
        return wide.T @ narrow
    return _without_autograd(wide.T, None, narrow.T).T  # N^T W: with few rows it is nearly three times as fast


def _layers(models: Sequence[nn.Module]) -> list[nn.Linear]:
    return list({id(one): one for model in models for one in model.modules() if suits(one)}.values())


def _product(weight: Tensor, bias: Tensor | None, inputs: Tensor) -> Tensor:
    assert torch.is_inference_mode_enabled(), "no gradient flows through products of oneDNN"
    return _without_autograd(weight, bias, inputs)


def _in_few_sizes(weight: Tensor, bias: Tensor | None, inputs: Tensor) -> Tensor:
    rows = inputs.shape[:-1].numel()
    more = -rows % (FEW if rows <= FEW else ROWS)
    if not more:
        return _product(weight, bias, inputs)
    padded = functional.pad(inputs.reshape(rows, -1), (0, 0, 0, more))
    return _product(weight, bias, padded)[:rows].unflatten(0, inputs.shape[:-1])


@contextmanager
def _computing(layer: nn.Linear, weight: Tensor, product: Callable[..., Tensor] = _product) -> Iterator[None]:
    layer.forward = partial(product, weight, layer.bias)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del layer.forward


def _give_back(layer: nn.Linear, weight: Tensor) -> None:
    with torch.inference_mode(False), torch.no_grad():
        layer.weight.data = weight.to_dense()


def suits(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is a linear layer of torch itself, with nothing in place of its forward, and oneDNN is faster."""
    if type(layer) is not nn.Linear or "forward" in vars(layer):
        return False
    return _suits(layer.weight)


def _suits(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and faster()


@cache
def faster() -> bool:
    """Whether torch uses AVX-512 here, and its oneDNN gives the product that torch gives, which is tried once.

    The functions are those that `torch.compile` calls; their names are not promised to stay.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    inputs, weight, bias = (torch.randn(shape, generator=generator) for shape in ((5, 96), (64, 96), (64,)))
    with torch.inference_mode():
        expected = functional.linear(inputs, weight, bias)
        try:
            found = _product(_in_order(weight), bias, inputs)
        except (AttributeError, RuntimeError):
            return False
    return bool((found - expected).abs().max() <= ROUNDING * expected.abs().max())


def chosen_for_speed() -> bool:
    """Whether sums may take the order that was fastest on AMD processors with AVX2 or AVX-512.

    They may on every processor with these instructions. `cpu_kernels: avx2` (pipeline/process.py) leaves them as torch
    computes them, since its promise of equal bytes has been tested with that.
    """
    measured = torch.backends.cpu.get_cpu_capability() in {"AVX2", "AVX512"}
    return measured and os.environ.get("ATEN_CPU_CAPABILITY") != "avx2"


def _in_order(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)


def _without_autograd(weight: Tensor, bias: Tensor | None, inputs: Tensor) -> Tensor:
    assert not torch.is_grad_enabled(), "no gradient flows through products of oneDNN"
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
