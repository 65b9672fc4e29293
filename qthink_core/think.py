"""Think blocks as token positions: where a block lies in a completion, and which K positions stand for it."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

WHOLE = "whole"  # opened and closed
CUT = "cut"  # the token limit fell inside the block
ENDED_INSIDE = "ended_inside"  # the model ended its turn inside the block
EMPTY = "empty"  # nothing but newlines between the marks
NEVER_OPENED = "never_opened"
EVEN, RUNNING = "even", "running"


class Marks(NamedTuple):
    """Token ids that delimit a block: `<think>`, `</think>`, every token of newlines alone, the end of a turn."""

    think: int
    end_think: int
    newlines: frozenset[int]
    eos: int


class Block(NamedTuple):
    """Where a think block lies: `tokens[start:stop]` is the thought; `answer` is where the answer begins, if it does."""

    state: str
    start: int
    stop: int
    answer: int | None


def find_block(tokens: Sequence[int], marks: Marks, opened: bool) -> Block:
    """The think block of a completion, without the marks and the newlines around them.

    `opened` says that the prompt already ends in an open `<think>`. A block that is never closed reaches to the end of
    the completion; the answer begins after `</think>` and its newlines (ruling 3 and 4 of docs/decisions.md).
    """
    start = 0 if opened else 1
    if not opened and (not tokens or tokens[0] != marks.think):
        return Block(NEVER_OPENED, 0, 0, None)
    ended = bool(tokens) and tokens[-1] == marks.eos
    last = len(tokens) - ended
    closing = next((i for i in range(start, last) if tokens[i] == marks.end_think), None)
    stop = last if closing is None else closing
    answer = None
    if closing is not None:
        answer = closing + 1
        while answer < last and tokens[answer] in marks.newlines:
            answer += 1
    start, stop = _trim(tokens, start, stop, marks.newlines)
    if start == stop:
        return Block(EMPTY, start, stop, answer)
    if closing is None:
        return Block(ENDED_INSIDE if ended else CUT, start, stop, None)
    return Block(WHOLE, start, stop, answer)


def _trim(tokens: Sequence[int], start: int, stop: int, newlines: Collection[int]) -> tuple[int, int]:
    while start < stop and tokens[start] in newlines:
        start += 1
    while start < stop and tokens[stop - 1] in newlines:
        stop -= 1
    return start, stop


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
