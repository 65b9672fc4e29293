"""Positions: the K tokens of a thought whose hidden states the latent steps learn to match (decision 3).

A rule is a function from a think block and K to K indices into its completion, in the order of the latent steps. An edit
of this module reruns `extract` and the stages after it, but not `sample`.
"""

from collections.abc import Callable

from qthink_core.method.think import Block


def even(block: Block, K: int) -> list[int]:
    """K indices spaced evenly over the thought (`evenly`); the last index is that of the thought's last token."""
    return [block.start + index for index in evenly(block.stop - block.start, K)]


def running(block: Block, K: int) -> list[int]:
    """The first K indices of the completion; from the index after the thought on, that index is repeated.

    Each latent step then corresponds to one token that the base model writes.
    """
    return [min(k, block.stop) for k in range(K)]


# `Rule` in artifacts/pairs.py lists the names.
RULES: dict[str, Callable[[Block, int], list[int]]] = {"even": even, "running": running}


def evenly(length: int, K: int) -> list[int]:
    """The K evenly spaced indices into a block of `length` tokens: `round(k * length / K) - 1` for k = 1..K.

    Halves round up, in integer arithmetic. The last index is that of the block's last token. A block with fewer than K
    tokens repeats indices, starting from index 0. Raises ValueError for an empty block, which has no positions.
    """
    if length < 1 or K < 1:
        raise ValueError(f"a block of {length} tokens has no {K} positions: both must be at least 1")
    return [max((2 * k * length + K) // (2 * K) - 1, 0) for k in range(1, K + 1)]
