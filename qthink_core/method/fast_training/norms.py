"""RMS norms with a gradient of their own: five passes over the numbers where autograd takes a dozen.

    y = w x r,    r = (mean(x^2) + eps)^(-1/2)        dx = r (g w) - x r^3 mean(g w x)

Models of transformers write the norm as six operations. A norm whose weights are trained is left as it is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Rows of the check, and how far its results may be apart, relative to the largest.
ROWS, ROUNDING = 3, 1e-6


def rms_norms(model: nn.Module) -> list[tuple[nn.Module, float]]:
    """The modules in float32 that are RMS norms with frozen weights, and their eps.

    Half precision has other roundings inside of a norm, which are left to the model.
    They are found by what they compute: a module with one vector of weights is tried on random numbers.
    """
    found = []
    for module in model.modules():
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not isinstance(eps, float) or [name for name, _ in module.named_parameters()] != ["weight"]:
            continue
        weight = module.get_parameter("weight")
        if weight.ndim == 1 and weight.dtype == torch.float32 and not weight.requires_grad and _is_rms(module, weight, eps):
            found.append((module, eps))
    return found


def _is_rms(module: nn.Module, weight: Tensor, eps: float) -> bool:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, len(weight), generator=generator).to(weight.device) * eps**0.5  # so small that eps counts
    with torch.no_grad():
        expected, found = module(x), _normed(x, weight, eps)[0]
    return bool((found - expected).abs().max() <= ROUNDING * expected.abs().max())


@contextmanager
def own_gradients(norms: Sequence[tuple[nn.Module, float]]) -> Iterator[None]:
    """A context in which the norms of `rms_norms` compute with a gradient of their own; values differ by rounding.

    Those that have another dtype by now are left as they are.
    """
    used = [(module, eps) for module, eps in norms if module.get_parameter("weight").dtype == torch.float32]
    for module, eps in used:
        vars(module)["forward"] = partial(_norm, module.get_parameter("weight"), eps)
    try:
        yield
    finally:
        for module, _ in used:
            del vars(module)["forward"]


def _norm(weight: Tensor, eps: float, x: Tensor) -> Tensor:
    return _Norm.apply(x, weight, eps)


def _normed(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    r = (torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])).add_(eps).rsqrt_()
    return (x * r).mul_(weight), r


class _Norm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, r = _normed(x, weight, eps)
        ctx.save_for_backward(x, r, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, r, weight = ctx.saved_tensors
        of_x = gradients[0] * weight
        shared = torch.linalg.vecdot(of_x, x)[..., None] * r.pow(3).div_(x.shape[-1])
        return of_x.mul_(r).addcmul_(x, shared, value=-1), None, None
