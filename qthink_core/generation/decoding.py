"""Decoding: from a context to completions, greedily or by seeded sampling, in batches that shrink as rows finish."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from qthink_core.artifacts.named_numbers import number_of
from qthink_core.errors import NumericError
from qthink_core.generation.roomy_cache import with_room
from qthink_core.method.hidden_states import last_hidden, logits
from qthink_core.method.latent_steps import Context

STOP, LENGTH = "stop", "length"
# choose(logits (U, V) of distinct texts, number of each unfinished completion, number of the new token,
# which of the distinct texts each of these completions has so far) -> token ids (N,)
Choose = Callable[[Float[Tensor, "U V"], Int[Tensor, " N"], int, Int[Tensor, " N"]], Int[Tensor, " N"]]


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


def greedy(scores: Float[Tensor, "U V"], rows: Int[Tensor, " N"], step: int, at: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """The likeliest token of each completion."""
    return scores.argmax(dim=-1)[at]


def decode(
    model: PreTrainedModel,
    context: Context,
    choose: Choose,
    eos: int,
    max_new_tokens: int,
    names: Sequence[str] | None = None,
    each: int = 1,
) -> list[Completion]:
    """`each` completions of each row of the context, row by row; the first token comes from the context's hidden state.

    Completions of one row that have said the same so far are computed once, and a finished one leaves the batch and its
    cache at once. Raises NumericError naming the completion (by `names`, else by number) and the token whose hidden state is
    not finite.
    """
    cache, mask, hidden = with_room(context.cache), context.mask, context.hidden
    device = mask.device
    at = torch.arange(len(mask), device=device).repeat_interleave(each)
    rows = torch.arange(len(at), device=device)
    tokens = torch.full((len(at), max_new_tokens), eos, device=device)
    lengths = torch.zeros(len(at), dtype=torch.long, device=device)
    with torch.inference_mode():
        for step in range(max_new_tokens):
            finite = torch.isfinite(hidden).all(dim=1)
            if not finite.all():
                row = int(rows[~finite[at]][0])
                name = names[row] if names else f"row {row}"
                raise NumericError(f"{name} has a hidden state that is not finite before token {step + 1}: check the model")
            chosen = choose(logits(model, hidden), rows, step, at)
            tokens[rows, step], lengths[rows] = chosen, step + 1
            alive = (chosen != eos).nonzero()[:, 0]
            if len(alive) == 0 or step + 1 == max_new_tokens:
                break
            rows = rows[alive]
            parents, new, at = _distinct(at[alive], chosen[alive])
            if not torch.equal(parents, torch.arange(len(mask), device=device)):
                cache.batch_select_indices(parents)
                mask = mask[parents]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            hidden = last_hidden(model, input_ids=new[:, None], mask=mask, cache=cache)[:, -1]
    texts = [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
    return [Completion(row, STOP if row[-1] == eos else LENGTH) for row in texts]


def _distinct(
    at: Int[Tensor, " N"], chosen: Int[Tensor, " N"]
) -> tuple[Int[Tensor, " U"], Int[Tensor, " U"], Int[Tensor, " N"]]:
    """The distinct continuations of N completions: the row that each goes on from, its token, and which one each has.

    One continuation of a row keeps the row's place if it can, so that little of the cache is moved: copying all of it
    whenever a completion ended was 70 % of the time of sampling 1,024 rollouts.
    """
    width = int(chosen.max()) + 1
    pairs, which = (at * width + chosen).unique(return_inverse=True)
    parents, new = pairs // width, pairs % width
    first = torch.cat([parents.new_ones(1), parents.diff()]) != 0
    stays = first & (parents < len(pairs))
    free = torch.ones(len(pairs), dtype=torch.bool, device=at.device)
    free[parents[stays]] = False
    place = torch.empty_like(parents)
    place[stays], place[~stays] = parents[stays], free.nonzero()[:, 0]
    order = place.argsort()
    return parents[order], new[order], place[which]


def rollout_key(seed: int, problem_id: str, rollout: int) -> list[int]:
    """The entropy of one rollout: a function of (seed, problem, index) and of nothing else (decision 16)."""
    return [seed, number_of(problem_id), rollout]


def answer_key(seed: int, problem_id: str, training: int | None) -> list[int]:
    """The entropy of a sampled answer: of (seed, question) and the system's training, of which the base has none."""
    return rollout_key(seed, problem_id, 0 if training is None else training + 1)


def request_seed(seed: int, problem_id: str) -> int:
    """The seed of a problem's request to vLLM, 62 bits; it samples child i of a request with the request's seed + i.

    So the seed of a rollout is a function of (seed, problem, index), as in `rollout_key` (decision 16).
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

    def choose(scores: Float[Tensor, "U V"], rows: Int[Tensor, " N"], step: int, at: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        kept = top_k or scores.shape[-1]
        values, ids = (scores / temperature).topk(min(kept, scores.shape[-1]), dim=-1)
        probability = values.double().softmax(dim=-1)
        before = probability.cumsum(dim=-1) - probability
        probability = probability.masked_fill(before >= top_p, 0.0)
        reached, last_possible = probability.cumsum(dim=-1), (probability > 0).sum(dim=-1) - 1
        draw = uniform[:, step].to(scores.device)[rows] * reached[at, -1]
        index = torch.minimum((reached[at] <= draw[:, None]).sum(dim=-1), last_possible[at])
        return ids[at, index]

    return choose
