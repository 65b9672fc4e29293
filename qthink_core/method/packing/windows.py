"""Windows: whole sequences that are read together, cut into passes of the same size; each prompt is read once."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

# A window has at most so many passes, unless one sequence alone is longer.
PASSES = 8


@runtime_checkable
class Marked(Protocol):
    """A sequence of tokens, the positions in it whose states are read, and its name in error messages.

    Its first `prompt` tokens are read once for all sequences that begin with the same; no position lies in them.
    """

    @property
    def name(self) -> str: ...
    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def positions(self) -> Sequence[int]: ...
    @property
    def prompt(self) -> int: ...


class Part(NamedTuple):
    """Tokens `start` to `stop` of a sequence, either of its prompt or of what follows it."""

    row: int
    start: int
    stop: int


def windows(wanted: Sequence[Marked], batch_tokens: int) -> list[list[list[Part]]]:
    """All sequences in windows, each of passes of `batch_tokens` tokens, the last of which may have fewer.

    Each prompt is followed by what its sequences have after it, from long to short, so that parts of similar length meet. A
    sequence that does not end in its pass goes on in the next one of its window.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(wanted):
        by_prompt.setdefault(tuple(row.tokens[: row.prompt]), []).append(index)
    found: list[list[Part]] = []
    held = 0
    for prompt, members in by_prompt.items():
        ordered = sorted(members, key=lambda i: (-len(wanted[i].tokens), i))
        after = [Part(index, len(prompt), len(wanted[index].tokens)) for index in ordered]
        for part in [Part(members[0], 0, len(prompt)), *after]:
            n = part.stop - part.start
            if not found or held + n > PASSES * batch_tokens:
                found.append([])
                held = 0
            found[-1].append(part)
            held += n
    return [passes(window, batch_tokens) for window in found]


def passes(window: Sequence[Part], batch_tokens: int) -> list[list[Part]]:
    """The parts of a window in passes of `batch_tokens` tokens, the last of which may have fewer."""
    made: list[list[Part]] = []
    room = 0
    for index, start, end in window:
        while start < end:
            if not room:
                made.append([])
                room = batch_tokens
            stop = min(end, start + room)
            made[-1].append(Part(index, start, stop))
            room -= stop - start
            start = stop
    return made
