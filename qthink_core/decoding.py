"""Decoding: from a context to completions, greedily or by seeded sampling, in batches that shrink as rows finish."""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from qthink_core.errors import NumericError
from qthink_core.hidden_states import last_hidden, logits
from qthink_core.latent_steps import Context
from qthink_core.roomy_cache import with_room

STOP, LENGTH = "stop", "length"
# choose(logits (B, V), index of each row in the first batch, number of the new token) -> token ids (B,)
Choose = Callable[[Float[Tensor, "B V"], Int[Tensor, " B"], int], Int[Tensor, " B"]]


class Sampling(NamedTuple):
    """How tokens are drawn: the seed of the run, and the parameters of `sampler`."""

    seed: int
    temperature: float
    top_p: float
    top_k: int


class Completion(NamedTuple):
    """Generated token ids, the end token included where it came, and why generation ended (`stop` or `length`)."""

    tokens: list[int]
    finish: str


def greedy(scores: Float[Tensor, "B V"], rows: Int[Tensor, " B"], step: int) -> Int[Tensor, " B"]:
    """The likeliest token of each row."""
    return scores.argmax(dim=-1)


def decode(
    model: PreTrainedModel,
    context: Context,
    choose: Choose,
    eos: int,
    max_new_tokens: int,
    names: Sequence[str] | None = None,
) -> list[Completion]:
    """The completion of each row of the context; its first token comes from the context's last hidden state.

    A finished row leaves the batch and its cache at once, so that every computed row emits a token. Raises NumericError
    naming the row (by `names`, else by number) and the token whose hidden state is not finite.
    """
    cache, mask, hidden = with_room(context.cache), context.mask, context.hidden
    rows = torch.arange(len(mask), device=mask.device)
    tokens: list[list[int]] = [[] for _ in range(len(mask))]
    finished = [LENGTH] * len(mask)
    with torch.inference_mode():
        for step in range(max_new_tokens):
            finite = torch.isfinite(hidden).all(dim=1)
            if not finite.all():
                row = int(rows[~finite][0])
                name = names[row] if names else f"row {row}"
                raise NumericError(f"{name} has a hidden state that is not finite before token {step + 1}: check the model")
            chosen = choose(logits(model, hidden), rows, step)
            for row, token in zip(rows.tolist(), chosen.tolist(), strict=True):
                tokens[row].append(token)
                if token == eos:
                    finished[row] = STOP
            alive = (chosen != eos).nonzero()[:, 0]
            if len(alive) == 0 or step + 1 == max_new_tokens:
                break
            if len(alive) < len(rows):
                cache.batch_select_indices(alive)
                rows, mask, chosen = rows[alive], mask[alive], chosen[alive]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            hidden = last_hidden(model, input_ids=chosen[:, None], mask=mask, cache=cache)[:, -1]
    return [Completion(row, finish) for row, finish in zip(tokens, finished, strict=True)]


def rollout_key(seed: int, problem_id: str, rollout: int) -> list[int]:
    """The entropy of one rollout: a function of (seed, problem, index) and of nothing else (ruling 16)."""
    named = int.from_bytes(hashlib.sha256(problem_id.encode()).digest()[:8], "big")
    return [seed, named, rollout]


def answer_key(seed: int, problem_id: str, training: int | None) -> list[int]:
    """The entropy of a sampled answer: of (seed, question) and the system's training, of which the base has none."""
    return rollout_key(seed, problem_id, 0 if training is None else training + 1)


def request_seed(seed: int, problem_id: str) -> int:
    """The seed of a problem's request to vLLM, 62 bits; it samples child i of a request with the request's seed + i.

    So the seed of a rollout is a function of (seed, problem, index), as in `rollout_key` (ruling 16).
    """
    seed, named, _ = rollout_key(seed, problem_id, 0)
    return int(np.random.SeedSequence([seed, named]).generate_state(1, np.uint64)[0] >> np.uint64(2))


def sampler(keys: Sequence[Sequence[int]], temperature: float, top_p: float, top_k: int, max_new_tokens: int) -> Choose:
    """Samples each row from its own stream: token t of a row uses the t-th uniform number of the row's key.

    Temperature, then top-k (0 keeps all), then top-p over what is left, as Hugging Face and vLLM order them; the draw is
    the inverse of the cumulative distribution, likeliest token first.
    """
    streams = [np.random.Generator(np.random.Philox(np.random.SeedSequence(key))) for key in keys]
    uniform = torch.from_numpy(np.stack([stream.random(max_new_tokens) for stream in streams]))

    def choose(scores: Float[Tensor, "B V"], rows: Int[Tensor, " B"], step: int) -> Int[Tensor, " B"]:
        kept = top_k or scores.shape[-1]
        values, ids = (scores / temperature).topk(min(kept, scores.shape[-1]), dim=-1)
        probability = values.double().softmax(dim=-1)
        before = probability.cumsum(dim=-1) - probability
        probability = probability.masked_fill(before >= top_p, 0.0)
        reached = probability.cumsum(dim=-1)
        draw = uniform[:, step].to(scores.device)[rows] * reached[:, -1]
        last_possible = (probability > 0).sum(dim=-1) - 1
        index = torch.minimum((reached <= draw[:, None]).sum(dim=-1), last_possible)
        return ids.gather(1, index[:, None])[:, 0]

    return choose
