"""Ranks: the processes that a launcher (accelerate, torchrun) starts for one stage, as its environment tells them."""

import os


def rank() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes there are; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def barrier() -> None:
    """Waits until every process has come here."""
    if world() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
