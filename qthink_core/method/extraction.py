"""Extraction: which tokens of which rollouts are read, and at which positions."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from qthink_core.artifacts.hidden_states import Source
from qthink_core.artifacts.pairs import Pair
from qthink_core.artifacts.rollouts import Rollout
from qthink_core.method.positions import RULES
from qthink_core.method.think import CUT, ENDED_INSIDE, WHOLE, Marks, block_of, marked_again


class Row(NamedTuple):
    """One rollout to read: its tokens up to the last needed position, and the positions of all pairs in the sequence.

    Its first `prompt` tokens are those of the prompt.
    """

    rollout: Rollout
    think_tokens: int
    tokens: list[int]
    positions: list[int]
    prompt: int

    @property
    def source(self) -> Source:
        """Whose states are read."""
        return Source(self.rollout.problem_id, self.rollout.rollout, self.think_tokens)

    @property
    def name(self) -> str:
        """The rollout's name in error messages."""
        return f"rollout {self.rollout.rollout} of {self.rollout.problem_id}"


def select(
    rollouts: Sequence[Rollout],
    prompts: Mapping[str, Sequence[int]],
    marks: Marks,
    pairs: Sequence[Pair],
    cut_blocks: str,
) -> tuple[list[Row], dict[str, int]]:
    """The rollouts with a usable think block, and counts of blocks by state (decisions 3 and 4).

    A block is incomplete when the token limit cuts it or the model ends its turn inside it. An incomplete block is used up
    to its last token, unless `cut_blocks` is `drop`. A block that is empty or never opened has no positions. Which rollouts
    are usable does not depend on the pairs. Of the usable ones, those with another think mark and those with a thought of
    fewer tokens than positions, which repeat, are counted, too.
    """
    usable = {WHOLE} if cut_blocks == "drop" else {WHOLE, CUT, ENDED_INSIDE}
    rows, counts = [], {"usable": 0}
    for rollout in rollouts:
        block = block_of(rollout, prompts, marks)
        counts[block.state] = counts.get(block.state, 0) + 1
        if block.state not in usable:
            continue
        prompt = prompts[rollout.problem_id]
        last = len(rollout.tokens) - 1
        wanted = [index for pair in pairs for index in RULES[pair.positions](block, pair.K)]
        at = [len(prompt) + min(index, last) for index in wanted]
        tokens = [*prompt, *rollout.tokens][: max(at) + 1]
        rows.append(Row(rollout, block.stop - block.start, tokens, at, len(prompt)))
        found = {
            "usable": True,
            "marked_again": marked_again(rollout.tokens, block, marks),
            "shorter_than_K": block.stop - block.start < max(pair.K for pair in pairs),
        }
        for name in (name for name, so in found.items() if so):
            counts[name] = counts.get(name, 0) + 1
    return rows, counts


def distinct(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """The rows without duplicates, and for every row the index of its equal among them.

    Two rows are duplicates when they have the same tokens and positions: then their hidden states are the same, too.
    """
    first: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    once: list[Row] = []
    which = []
    for row in rows:
        key = tuple(row.tokens), tuple(row.positions)
        if key not in first:
            first[key] = len(once)
            once.append(row)
        which.append(first[key])
    return once, which
