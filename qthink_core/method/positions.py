"""Positions: the K tokens of a thought whose hidden states the latent steps learn to match (decision 3)."""

from qthink_core.method.think import Block

EVEN, RUNNING = "even", "running"


def positions(block: Block, K: int, spacing: str) -> list[int]:
    """The K positions that stand for a block, as indices into its completion.

    `even`: spaced evenly over the thought (`evenly`). `running`: the completion token by token from its first one, up to the
    one that follows the thought, which is repeated where K is larger: latent steps then go as the base model writes.
    """
    if spacing == RUNNING:
        return [min(k, block.stop) for k in range(K)]
    return [block.start + index for index in evenly(block.stop - block.start, K)]


def evenly(length: int, K: int) -> list[int]:
    """The K evenly spaced indices into a block of `length` tokens: `round(k * length / K) - 1` for k = 1..K.

    Halves round up, in integer arithmetic. The last index is the block's last token; a block shorter than K repeats
    positions, the first of them from index 0. Raises ValueError for an empty block, which has none.
    """
    if length < 1 or K < 1:
        raise ValueError(f"a block of {length} tokens has no {K} positions: both must be at least 1")
    return [max((2 * k * length + K) // (2 * K) - 1, 0) for k in range(1, K + 1)]
