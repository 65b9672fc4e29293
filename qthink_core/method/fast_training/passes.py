"""The states that predict the tokens of answers, and the latents, of a micro-batch that is read as one row."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from qthink_core.method.fast_training.one_row import OneRow


class Read(NamedTuple):
    """What a micro-batch needs for its loss, like `losses.Outputs` before the output head.

    `hidden` predicts `labels`, the tokens of all targets, and `lengths` is for each the number in its target. Targets lie in
    the order in which they were read; `latents` have the given order.
    """

    hidden: Float[Tensor, "T D"]
    labels: Int[Tensor, " T"]
    lengths: Int[Tensor, " T"]
    latents: list[Float[Tensor, "B D"]]


def after_latents(
    model: PreTrainedModel,
    project: Callable[[Tensor], Float[Tensor, "B D"]],
    prompts: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    K: int,
) -> Read:
    """As `latent_steps.answer_states`: the prompts, K - 1 latent steps, then the last latent input with the targets.

    `project` makes the next latent inputs of hidden states.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    prompts, targets = [prompts[i] for i in order], [targets[i] for i in order]
    lengths, embed = [len(prompt) for prompt in prompts], model.get_input_embeddings()
    row, latents = OneRow(model, lengths), list[Tensor]()
    hidden = row.read(embed(tokens(prompts, model)), lengths, indices([n - 1 for n in accumulate(lengths)], model))
    for _ in range(K - 1):
        hidden = row.read(project(hidden), [1] * len(prompts))
        latents.append(hidden)
    # each target follows its latent input, without its last token
    new = [max(len(target), 1) for target in targets]
    firsts = [end - n for end, n in zip(accumulate(new), new, strict=True)]
    rest = iter(range(len(prompts), sum(new)))
    joined = [index if not inside else next(rest) for index, n in enumerate(new) for inside in range(n)]
    inputs = torch.cat([project(hidden), embed(tokens([target[:-1] for target in targets], model))])
    hidden = row.read(inputs.index_select(0, indices(joined, model)), new)
    latents.append(hidden.index_select(0, indices(firsts, model)))
    if not all(targets):
        at = [first + index for first, target in zip(firsts, targets, strict=True) for index in range(len(target))]
        hidden = hidden.index_select(0, indices(at, model))
    given = indices(sorted(range(len(order)), key=order.__getitem__), model)
    return Read(hidden, *labelled(targets, model), [one.index_select(0, given) for one in latents])


def after_prompts(model: PreTrainedModel, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Read:
    """[prompt; target] in one pass, without latent steps."""
    both = sorted(zip(prompts, targets, strict=True), key=lambda two: len(two[0]) + len(two[1]))
    targets, sequences = [target for _, target in both], [[*prompt, *target[:-1]] for prompt, target in both]
    lengths, ends = [len(one) for one in sequences], accumulate(len(one) for one in sequences)
    at = [end - len(target) + index for end, target in zip(ends, targets, strict=True) for index in range(len(target))]
    inputs = model.get_input_embeddings()(tokens(sequences, model))
    hidden = OneRow(model, lengths).read(inputs, lengths, indices(at or [0], model))
    return Read(hidden[: len(at)], *labelled(targets, model), [])


def labelled(targets: Sequence[Sequence[int]], model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """The tokens of all targets, and for each the number in its target."""
    return tokens(targets, model), indices([len(target) for target in targets for _ in target], model)


def tokens(rows: Sequence[Sequence[int]], model: PreTrainedModel) -> Int[Tensor, " T"]:
    """All tokens of all rows, one row after the other."""
    return indices([token for row in rows for token in row], model)


def indices(values: list[int], model: PreTrainedModel) -> Int[Tensor, " N"]:
    """Whole numbers on the model's device."""
    return torch.tensor(values, dtype=torch.long, device=model.device)
