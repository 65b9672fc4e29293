"""Completions: what a model generated after a prompt. Rollouts and answers are completions with the ids of their problem."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

STOP, LENGTH = "stop", "length"
COLUMNS = [("tokens", pa.list_(pa.int32())), ("text", pa.string()), ("finish", pa.string())]


@dataclass(frozen=True)
class Completion:
    """Generated token ids, including the end token if it came, their text, and why generation ended (`stop` or `length`)."""

    tokens: list[int]
    text: str
    finish: str


def n_tokens(rows: Sequence[Completion]) -> int:
    """The number of tokens in all completions."""
    return sum(len(row.tokens) for row in rows)


def n_at_limit(rows: Sequence[Completion]) -> int:
    """The number of completions cut at the token limit."""
    return sum(row.finish == LENGTH for row in rows)
