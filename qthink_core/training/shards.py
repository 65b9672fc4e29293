"""Shards of hidden states as units of work: the function that makes one from a block of rollouts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from qthink_core.artifacts import hidden_states, prepared, rollouts
from qthink_core.artifacts.pairs import Pair
from qthink_core.method import extraction, think
from qthink_core.method.hidden_states import read_positions
from qthink_core.models.loading import load_model, pick_device
from qthink_core.models.tokenizer import load_tokenizer
from qthink_core.pipeline.executor import Made, Make


@contextmanager
def maker(
    base: Path,
    problems: Path,
    device: str,
    dtype: str,
    *,
    pairs: Sequence[Pair],
    cut_blocks: str,
    batch_tokens: int,
    store: str,
) -> Iterator[Make]:
    """A function that makes a shard from the file of a block of rollouts, with the model in `base`.

    `pairs[0]` is the shared pair. The other arguments are those of `read_positions` and `extraction.select`.
    """
    marks, model = think.marks(load_tokenizer(base)), load_model(base, pick_device(device), dtype)
    prompts = {row["id"]: row["prompt_thinking"] for row in prepared.read(problems, "train")}

    def make(shard: str, block: Path) -> Made:
        rows, counts = extraction.select(rollouts.read(block), prompts, marks, pairs, cut_blocks)
        once, which = extraction.distinct(rows)
        states = read_positions(model, once, sum(pair.K for pair in pairs), batch_tokens, store)
        states = states[np.array(which, dtype=int)]
        return hidden_states.shard(shard, [row.source for row in rows], states, pairs), counts | {"read": len(once)}

    yield make
