"""Completions: what a model generated after a prompt. A rollout and an answer are each a completion and whose it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

STOP, LENGTH = "stop", "length"
COLUMNS = [("tokens", pa.list_(pa.int32())), ("text", pa.string()), ("finish", pa.string())]


@dataclass(frozen=True)
class Completion:
    """Generated token ids with the end token where it came, their text, and why generation ended (`stop` or `length`)."""

    tokens: list[int]
    text: str
    finish: str


def n_tokens(rows: Sequence[Completion]) -> int:
    """The tokens of all completions."""
    return sum(len(row.tokens) for row in rows)


def n_at_limit(rows: Sequence[Completion]) -> int:
    """How many completions the token limit cut."""
    return sum(row.finish == LENGTH for row in rows)
