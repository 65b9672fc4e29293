"""Rollouts: G sampled completions a problem, made in blocks of whole problems, stored as token ids with their text."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from qthink_core.artifacts import Writer, listed
from qthink_core.think import EMPTY, NEVER_OPENED, Block, Marks, find_block

SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("rollout", pa.int32()),
        ("tokens", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("finish", pa.string()),
    ]
)


class Rollout(NamedTuple):
    """One completion: its problem, its index 0..G-1, its token ids with the end token, text, and why it ended."""

    problem_id: str
    rollout: int
    tokens: list[int]
    text: str
    finish: str


def blocks(ids: Sequence[str], size: int) -> list[list[str]]:
    """The problem ids in sorted order, cut into blocks of at most `size`: the plan that a resumed run repeats."""
    ordered = sorted(ids)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def writer(rollouts: Sequence[Rollout]) -> Writer:
    """Writes one block as Parquet."""
    table = pa.Table.from_pylist([row._asdict() for row in rollouts], schema=SCHEMA)
    return lambda path: pq.write_table(table, path)


def counts(rollouts: Sequence[Rollout]) -> dict[str, int]:
    """Rollouts, their tokens, and how many ran into the token limit."""
    return {
        "rollouts": len(rollouts),
        "tokens": sum(len(row.tokens) for row in rollouts),
        "cut_at_limit": sum(row.finish == "length" for row in rollouts),
    }


def thoughts(rollouts: Sequence[Rollout], prompts: Mapping[str, Sequence[int]], marks: Marks) -> int:
    """How many rollouts have a think block with something in it."""
    return sum(block_of(row, prompts, marks).state not in (EMPTY, NEVER_OPENED) for row in rollouts)


def read(path: Path) -> list[Rollout]:
    """The rollouts of one block in canonical order: by problem id, then index."""
    rows = (Rollout(**row) for row in pq.read_table(path).to_pylist())
    return sorted(rows, key=lambda row: (row.problem_id, row.rollout))


def files(folder: Path) -> list[Path]:
    """The files of all blocks in order; a block holds whole problems, by sorted ids. All rows take 50 bytes a token."""
    return [folder / name for name in listed(folder, ".parquet")]


def by_problem(rollouts: Iterable[Rollout]) -> dict[str, list[Rollout]]:
    """Rollouts grouped by problem, in their order."""
    groups: dict[str, list[Rollout]] = {}
    for row in rollouts:
        groups.setdefault(row.problem_id, []).append(row)
    return groups


def marks(tokenizer: Any) -> Marks:
    """The ids that delimit think blocks in this tokenizer; `qthink_core.base_model` has checked that they exist."""
    think, end = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    newlines = frozenset(
        number
        for number, text in enumerate(tokenizer.batch_decode([[i] for i in range(len(tokenizer))]))
        if text and not text.strip("\n")
    )
    return Marks(think, end, newlines, tokenizer.eos_token_id)


def opened(prompt: Sequence[int], marks: Marks) -> bool:
    """Whether the prompt itself ends in an open think block (templates that write `<think>` for the model)."""
    end = len(prompt)
    while end and prompt[end - 1] in marks.newlines:
        end -= 1
    return end > 0 and prompt[end - 1] == marks.think


def spoken(tokenizer: Any, prompt: Sequence[int], tokens: Sequence[int]) -> str:
    """What the assistant's turn says: the completion as text, behind the `<think>` that some prompts open for it.

    Without it a thought that was cut would look like an answer.
    """
    tail = tokenizer.decode(prompt[-2:])
    opening = "<think>\n" if tail.rstrip("\n").endswith("<think>") else ""
    return opening + tokenizer.decode(tokens, skip_special_tokens=True)


def block_of(rollout: Rollout, prompts: Mapping[str, Sequence[int]], marks: Marks) -> Block:
    """The rollout's think block."""
    return find_block(rollout.tokens, marks, opened(prompts[rollout.problem_id], marks))
