"""Batched products with few rows on the left, such as the attention of one new token, as weighted sums of rows.

Torch computes each product of a batch by MKL, whose kernels for so few rows are slow on AMD processors. `embedding_bag` is
its kernel for sums of the rows of a table with weights, which reads each row of the right side once (docs/decisions/
engineering.md, Passes).
"""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from qthink_core.numerics.products import chosen_for_speed

# With more rows on the left, a product that packs the right side takes as little time.
MOST = 8


def product(left: Float[Tensor, "N H M C"], right: Float[Tensor, "N H C E"]) -> Float[Tensor, "N H M E"]:
    """left @ right. With few rows M in float32 without autograd, it adds up in the order of C where `chosen_for_speed`."""
    if not _suits(left, right):
        return left @ right
    N, H, M, C = left.shape
    by_N, by_H, by_C, _ = right.stride()
    rows = by_N * (N - 1) + by_H * (H - 1)
    table = right.as_strided((rows // by_C + C, right.shape[3]), (by_C, 1))
    at, starts = _places(N, H, M, C, by_N // by_C, by_H // by_C)
    weights = left.reshape(-1)
    return functional.embedding_bag(at, table, starts, mode="sum", per_sample_weights=weights).view(N, H, M, -1)


def _suits(left: Tensor, right: Tensor) -> bool:
    """Whether the left side has few rows, and the rows of the right side are those of one table."""
    if left.shape[2] > MOST or not left.numel() or not right.numel() or left.shape[:2] != right.shape[:2]:
        return False
    if {left.dtype, right.dtype} != {torch.float32} or left.device.type != "cpu" or torch.is_grad_enabled():
        return False
    by_N, by_H, by_C, by_E = right.stride()
    return by_E == 1 and by_C > 0 and by_N % by_C == 0 and by_H % by_C == 0 and chosen_for_speed()


@lru_cache(maxsize=4)
def _places(N: int, H: int, M: int, C: int, by_N: int, by_H: int) -> tuple[Int[Tensor, " T"], Int[Tensor, " S"]]:
    """The rows of the table that each sum adds up, and where each sum begins in them; all layers of a pass have the same."""
    first = torch.arange(N, dtype=torch.int32)[:, None] * by_N + torch.arange(H, dtype=torch.int32) * by_H
    rows = first[:, :, None, None] + torch.arange(C, dtype=torch.int32)
    return rows.expand(N, H, M, C).reshape(-1), torch.arange(0, N * H * M * C, C, dtype=torch.int32)
