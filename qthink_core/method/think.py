"""Think blocks: where the think block of a completion starts and stops, and the tokens that delimit it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from qthink_core.artifacts.rollouts import Rollout

WHOLE = "whole"  # opened and closed
CUT = "cut"  # the token limit fell inside the block
ENDED_INSIDE = "ended_inside"  # the model ended its turn inside the block
EMPTY = "empty"  # nothing but newlines between the marks
NEVER_OPENED = "never_opened"
OPENING = 4  # tokens that may hold `<think>` and its newlines


class Marks(NamedTuple):
    """The token ids that delimit a block: `<think>`, `</think>`, every token of newlines only, the end of a turn."""

    think: int
    end_think: int
    newlines: frozenset[int]
    eos: int


class Block(NamedTuple):
    """The place of a think block: `tokens[start:stop]` is the thought; the answer, if any, begins at `answer`."""

    state: str
    start: int
    stop: int
    answer: int | None


def find_block(tokens: Sequence[int], marks: Marks, opened: bool) -> Block:
    """The think block of a completion, without its marks and the newlines next to them.

    `opened`: the prompt already ends in an open `<think>`. A block that is never closed extends to the end of the
    completion. The answer begins after `</think>` and the newlines that follow it (decisions 3 and 4).
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


def marked_again(tokens: Sequence[int], block: Block, marks: Marks) -> bool:
    """Whether there is another think mark in the thought or behind it: a block inside the block, a second one or its end."""
    behind = len(tokens) if block.answer is None else block.answer
    return any(token in (marks.think, marks.end_think) for token in [*tokens[block.start : block.stop], *tokens[behind:]])


def _trim(tokens: Sequence[int], start: int, stop: int, newlines: Collection[int]) -> tuple[int, int]:
    while start < stop and tokens[start] in newlines:
        start += 1
    while start < stop and tokens[stop - 1] in newlines:
        stop -= 1
    return start, stop


def marks(tokenizer: Any) -> Marks:
    """The ids that delimit think blocks in this tokenizer; `models.think_tokens` has checked that they exist."""
    think, end = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    newlines = frozenset(
        number
        for number, text in enumerate(tokenizer.batch_decode([[i] for i in range(len(tokenizer))]))
        if text and not text.strip("\n")
    )
    return Marks(think, end, newlines, tokenizer.eos_token_id)


def opens_block(prompt: Sequence[int], marks: Marks) -> bool:
    """Whether the prompt itself ends in an open think block (templates that write `<think>` for the model)."""
    end = len(prompt)
    while end and prompt[end - 1] in marks.newlines:
        end -= 1
    return end > 0 and prompt[end - 1] == marks.think


def spoken(tokenizer: Any, prompt: Sequence[int], tokens: Sequence[int]) -> str:
    """The text of the assistant's turn: the completion, preceded by `<think>` if the prompt opened the block.

    Without the mark, a thought that was cut at the token limit would look like an answer.
    """
    return opening(tokenizer, prompt) + tokenizer.decode(tokens, skip_special_tokens=True)


def opening(tokenizer: Any, prompt: Sequence[int]) -> str:
    """What precedes the completion in the text of the turn: `<think>` and its newlines if the prompt opened the block."""
    text = tokenizer.decode(prompt[-OPENING:])
    _, mark, newlines = text.rpartition("<think>")
    return "" if newlines.strip("\n") else f"{mark}{newlines}"


def block_of(rollout: Rollout, prompts: Mapping[str, Sequence[int]], marks: Marks) -> Block:
    """The rollout's think block."""
    return find_block(rollout.tokens, marks, opens_block(prompts[rollout.problem_id], marks))


def thoughts(rollouts: Sequence[Rollout], prompts: Mapping[str, Sequence[int]], marks: Marks) -> int:
    """The number of rollouts whose think block is not empty."""
    return sum(block_of(row, prompts, marks).state not in (EMPTY, NEVER_OPENED) for row in rollouts)
