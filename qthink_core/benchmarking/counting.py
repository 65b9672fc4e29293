"""Counts: forward calls, tokens that the layers process, and rows of logits. They are exact, so a test can hold them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from qthink_core.method.packing.windows import Marked


@dataclass
class Work:
    """What a model did: passes through its body, the tokens in them with padding, and rows of its output head."""

    forward_calls: int = 0
    tokens: int = 0
    logits_rows: int = 0


@contextmanager
def counted(model: Any) -> Iterator[Work]:
    """Counts the work of a model of transformers in the context, whoever calls it."""
    work = Work()

    def in_body(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        work.forward_calls += 1
        work.tokens += inputs[0].shape[:-1].numel()

    def in_head(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        work.logits_rows += inputs[0].shape[:-1].numel()

    body, head = model.get_decoder(), model.get_output_embeddings()
    hooks = [
        body.layers[0].register_forward_pre_hook(in_body),
        head.register_forward_pre_hook(in_head),
    ]
    try:
        yield work
    finally:
        for hook in hooks:
            hook.remove()


def tokens_needed(rows: Sequence[Marked]) -> int:
    """The tokens that have to be read for the states of rollouts, each prompt once, and none after the last position."""
    prompts = {tuple(row.tokens[: row.prompt]) for row in rows}
    return sum(map(len, prompts)) + sum(max(row.positions) + 1 - row.prompt for row in rows)
