"""Decoding: the tokens of completions from a context, greedy or sampled, in batches that shrink as completions finish."""

from collections.abc import Callable, Collection, Generator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from qthink_core.errors import NumericError
from qthink_core.generation.requests import stream
from qthink_core.generation.roomy_cache import with_room
from qthink_core.method.hidden_states import last_hidden, logits
from qthink_core.method.latent_steps import Context

# choose(logits (U, V) of the distinct texts, index of each unfinished completion (N,), index of the new token,
# index of the distinct text that each of these completions has so far (N,)) -> token ids (N,)
Choose = Callable[[Float[Tensor, "U V"], Int[Tensor, " N"], int, Int[Tensor, " N"]], Int[Tensor, " N"]]


def greedy(scores: Float[Tensor, "U V"], rows: Int[Tensor, " N"], step: int, at: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """The most likely token of each completion (a `Choose`)."""
    return scores.argmax(dim=-1)[at]


def decode(
    model: PreTrainedModel,
    context: Context,
    choose: Choose,
    ends: Collection[int],
    max_new_tokens: int,
    names: Sequence[str] | None = None,
    each: int = 1,
) -> list[list[int]]:
    """The tokens of `each` completions for each row of the context, row by row, including its end token if it came.

    Raises what `decode_steps` raises.
    """
    n = len(context.mask) * each
    device = context.mask.device
    tokens = torch.zeros((n, max_new_tokens), dtype=torch.long, device=device)
    lengths = torch.zeros(n, dtype=torch.long, device=device)
    for step, (rows, chosen) in enumerate(decode_steps(model, context, choose, ends, max_new_tokens, names, each)):
        tokens[rows, step], lengths[rows] = chosen, step + 1
    return [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]


def decode_steps(
    model: PreTrainedModel,
    context: Context,
    choose: Choose,
    ends: Collection[int],
    max_new_tokens: int,
    names: Sequence[str] | None = None,
    each: int = 1,
) -> Generator[tuple[Int[Tensor, " N"], Int[Tensor, " N"]], Bool[Tensor, " N"] | None, None]:
    """Yields, for each new token, the indices of the N unfinished completions and their tokens.

    The first token comes from the context's hidden state. Completions of one row that are equal so far are computed once. A
    finished completion leaves the batch and the cache immediately. A completion is finished after one of the tokens `ends`,
    or where the mask is True that the caller sends back. Raises NumericError naming the completion (from `names`, else by
    its number) and the token before which its hidden state is not finite.
    """
    cache, mask, hidden = with_room(context.cache), context.mask, context.hidden
    device = mask.device
    at = torch.arange(len(mask), device=device).repeat_interleave(each)
    rows = torch.arange(len(at), device=device)
    last = torch.tensor(sorted(ends), device=device)
    for step in range(max_new_tokens):
        # entered anew for each token, since a caller that waits between two tokens must not run in inference mode
        with torch.inference_mode():
            finite = torch.isfinite(hidden).all(dim=1)
            if not finite.all():
                row = int(rows[~finite[at]][0])
                name = names[row] if names else f"row {row}"
                raise NumericError(f"{name} has a hidden state that is not finite before token {step + 1}: check the model")
            chosen = choose(logits(model, hidden), rows, step, at)
        ended = yield rows, chosen
        with torch.inference_mode():
            going = ~torch.isin(chosen, last)
            if ended is not None:
                going &= ~ended
            alive = going.nonzero()[:, 0]
            if len(alive) == 0 or step + 1 == max_new_tokens:
                return
            rows = rows[alive]
            parents, new, at = _distinct(at[alive], chosen[alive], each)
            if not torch.equal(parents, torch.arange(len(mask), device=device)):
                cache.batch_select_indices(parents)
                mask = mask[parents]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            hidden = last_hidden(model, input_ids=new[:, None], mask=mask, cache=cache)[:, -1]


def _distinct(
    at: Int[Tensor, " N"], chosen: Int[Tensor, " N"], each: int
) -> tuple[Int[Tensor, " U"], Int[Tensor, " U"], Int[Tensor, " N"]]:
    """The distinct continuations of N completions: the row that each continues, its token, and each completion's index.

    If possible, one continuation of a row stays in that row's place, so that little of the cache moves. Copying the whole
    cache whenever a completion ended took 70 % of the time of sampling 1,024 rollouts.
    """
    if each == 1:  # no two continue the same row
        parents, new, which = at, chosen, torch.arange(len(at), device=at.device)
        stays = parents < len(parents)
    else:
        width = int(chosen.max()) + 1
        pairs, which = (at * width + chosen).unique(return_inverse=True)
        parents, new = pairs // width, pairs % width
        first = torch.cat([parents.new_ones(1), parents.diff()]) != 0
        stays = first & (parents < len(pairs))
    free = torch.ones(len(parents), dtype=torch.bool, device=at.device)
    free[parents[stays]] = False
    place = torch.empty_like(parents)
    place[stays], place[~stays] = parents[stays], free.nonzero()[:, 0]
    order = place.argsort()
    return parents[order], new[order], place[which]


def sampler(keys: Sequence[Sequence[int]], temperature: float, top_p: float, top_k: int, max_new_tokens: int) -> Choose:
    """A `Choose` that samples each completion from a stream of its own: token t uses the t-th uniform number of its key.

    Temperature comes first, then top-k (0 keeps all), then top-p over the rest, in the order of Hugging Face and vLLM. The
    draw inverts the cumulative distribution, in which the most likely token is first.
    """
    uniform = torch.from_numpy(np.stack([stream(key).random(max_new_tokens) for key in keys]))

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
