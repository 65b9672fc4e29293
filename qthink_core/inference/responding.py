"""The answers to one batch of prompts: latent steps, then tokens, with the text of every row as it grows."""

import time
from collections.abc import Generator, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from qthink_core.artifacts.completions import LENGTH, STOP
from qthink_core.errors import NumericError
from qthink_core.generation.decoding import Choose, decode_steps
from qthink_core.generation.readout import likely_tokens
from qthink_core.inference.settings import Response, Settings
from qthink_core.inference.text import GrowingText
from qthink_core.method.latent_steps import Context, latent_steps, project, read_prompts
from qthink_core.method.projection_head import ProjectionHead
from qthink_core.method.think import opening
from qthink_core.models.loading import System

Readout = list[list[tuple[str, float]]]


class Row(NamedTuple):
    """One answer in the making: its tokens, its text, the largest number of tokens, and the tokens that end it."""

    tokens: list[int]
    text: GrowingText
    limit: int
    ends: frozenset[int]

    def add(self, token: int) -> str:
        """The piece of text that a new token makes certain."""
        self.tokens.append(token)
        return self.text.add(token)

    @property
    def over(self) -> bool:
        """Whether an end token, a stop string or the limit ended the answer."""
        return self.stopped or len(self.tokens) >= self.limit

    @property
    def stopped(self) -> bool:
        """Whether it was an end token or a stop string."""
        return self.text.stopped or self.tokens[-1] in self.ends


def responding(
    system: System,
    prompts: Sequence[Sequence[int]],
    names: Sequence[str],
    limits: Sequence[int],
    choose: Choose,
    how: Settings,
    seen: list[Readout] | None = None,
) -> Generator[tuple[int, str], None, list[Response]]:
    """Yields (row, piece of its text) as the batch is answered, and returns the responses.

    The readout of each row is added to `seen` once its latent steps are taken, before the first piece.
    Raises NumericError naming the question (from `names`) and the step or token at which a hidden state is not finite.
    """
    started, tokenizer = time.perf_counter(), system.tokenizer
    context, latents, readout = think(system, prompts, names, how.top)
    if seen is not None:
        seen.extend(readout)
    rows = [
        Row([], GrowingText(tokenizer, how.stop, opening(tokenizer, prompt)), limit, system.ends)
        for prompt, limit in zip(prompts, limits, strict=True)
    ]
    ended = None
    steps = decode_steps(system.model, context, choose, system.ends, max(limits), names)
    while True:
        try:
            indices, chosen = steps.send(ended)
        except StopIteration:
            break
        for index, token in zip(indices.tolist(), chosen.tolist(), strict=True):
            if piece := rows[index].add(token):
                yield index, piece
        ended = torch.tensor([rows[index].over for index in indices.tolist()], device=chosen.device)
    for index, row in enumerate(rows):
        if piece := row.text.end():
            yield index, piece
    seconds = time.perf_counter() - started
    return [
        Response(
            text=row.text.text,
            token_ids=row.tokens,
            finish=STOP if row.stopped else LENGTH,
            prompt_tokens=len(prompt),
            latents=latents[index],
            readout=readout[index],
            seconds=seconds,
            batch=len(rows),
        )
        for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
    ]


@torch.inference_mode()
def think(
    system: System, prompts: Sequence[Sequence[int]], names: Sequence[str], top: int
) -> tuple[Context, Float[np.ndarray, "B K D"], list[Readout]]:
    """The context after the latent steps, the latents z_1..z_K, and the readout of every h_k, by row.

    Raises NumericError naming the question and the latent step whose hidden state is not finite.
    """
    model = cast(PreTrainedModel, system.model)
    # a tokenizer without a padding token may pad with any token, because the mask hides it
    context = read_prompts(model, prompts, system.tokenizer.pad_token_id or 0)
    before = context.hidden
    context, steps = latent_steps(model, system.head, context, system.K)
    readout: list[Readout] = [[] for _ in prompts]
    latents: list[Float[Tensor, "B 1 D"]] = []
    for k, hidden in enumerate(steps, 1):
        for name, finite in zip(names, torch.isfinite(hidden).all(dim=1).tolist(), strict=True):
            if not finite:
                raise NumericError(f"{name} has a hidden state that is not finite at latent step {k}: check the model")
        if top:
            for row, likely in zip(readout, likely_tokens(system, hidden, top), strict=True):
                row.append(likely)
        latents.append(project(model, cast(ProjectionHead, system.head), before).float().cpu())
        before = hidden
    empty = np.zeros((len(prompts), 0, before.shape[1]), np.float32)
    return context, torch.cat(latents, dim=1).numpy() if latents else empty, readout
