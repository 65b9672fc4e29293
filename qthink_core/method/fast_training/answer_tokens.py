"""-log p of the answers' tokens in blocks of rows, so that the logits of all of them never exist at once.

With p = softmax(z) and z = logits(h), the loss of a token has the gradient (p - onehot) dz/dh. It does not depend on how the
loss weighs the token, so the forward pass computes it block by block and keeps it: D numbers a token instead of V.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import PreTrainedModel

from qthink_core.method.hidden_states import logits
from qthink_core.numerics.products import fixed, suits

# Rows of a block: as many logits as a processor's cache holds, but enough rows for fast products. A GPU takes more rows.
LOGITS, FEWEST, ON_GPU = 1 << 18, 64, 1024
# From so many rows on, the head's weights in oneDNN's order save more time than putting them in order takes.
ENOUGH = 256


def negative_log_likelihood(model: PreTrainedModel, hidden: Float[Tensor, "T D"], labels: Int[Tensor, " T"]) -> Tensor:
    """-log p of each label in nats (T), in float32, from the last hidden states that predict them.

    A head that is trained gets its gradient by autograd, for which all logits are kept.
    """
    head = model.get_output_embeddings()
    if any(one.requires_grad for one in head.parameters()):
        return functional.cross_entropy(logits(model, hidden), labels, reduction="none")
    with _by_onednn(head, len(hidden)):
        return _InBlocks.apply(hidden, labels, partial(logits, model))


class _InBlocks(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, labels: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
        found, slopes, start = list[Tensor](), list[Tensor](), 0
        rows = FEWEST
        while start < len(hidden):
            some = hidden[start : start + rows].detach().requires_grad_(ctx.needs_input_grad[0])
            with torch.set_grad_enabled(some.requires_grad):
                scores = score(some)
                nats = functional.cross_entropy(scores, labels[start : start + rows], reduction="none")
            if some.requires_grad:
                slopes += torch.autograd.grad(nats, some, torch.ones_like(nats))
            found.append(nats.detach())
            start += rows
            rows = max(FEWEST, LOGITS // scores.shape[1]) if some.device.type == "cpu" else ON_GPU
        if slopes:
            ctx.save_for_backward(torch.cat(slopes))
        ctx.like = hidden.shape, hidden.dtype
        return torch.cat(found) if found else hidden.new_empty(0, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        shape, dtype = ctx.like
        slopes = ctx.saved_tensors[0] if ctx.saved_tensors else gradients[0].new_zeros(shape)
        return (gradients[0][:, None] * slopes).to(dtype), None, None


@contextmanager
def _by_onednn(head: nn.Module, rows: int) -> Iterator[None]:
    """A context in which a frozen output head computes by oneDNN, and so does its gradient, where that is faster."""
    if rows < ENOUGH or not suits(head):
        yield
        return
    with torch.no_grad():
        times, back = fixed(head.weight, head.bias), fixed(head.weight.T)
    vars(head)["forward"] = partial(_multiply, times=times, back=back)
    try:
        yield
    finally:
        del vars(head)["forward"]


def _multiply(x: Tensor, times: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
    return _Multiply.apply(x, times, back)


class _Multiply(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, times: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.back = back
        return times(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(gradients[0]), None, None
