"""The projection head's start: fitted, before training, to say the next token of the base model's own thoughts.

A head that starts at random feeds the first latent steps with vectors that the model has never read. Fitted so, it maps the
state that predicts a token to that token's input embedding, and a latent step starts as a written token would.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from qthink_core.errors import DataError
from qthink_core.hidden_states import last_hidden, pad
from qthink_core.projection_head import ProjectionHead
from qthink_core.recipe import HeadFit
from qthink_core.rollouts import Rollout, block_of
from qthink_core.think import WHOLE, Marks


def next_tokens(
    model: PreTrainedModel,
    rollouts: Sequence[Rollout],
    prompts: Mapping[str, Sequence[int]],
    marks: Marks,
    wanted: int,
    batch: int,
) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
    """Last hidden states and the token that follows each, over whole think blocks, in the order given until N >= wanted.

    From the prompt's last token, which predicts the first one of the block's opening, to the last of the thought.
    Raises DataError where no rollout has a whole block.
    """
    states: list[Tensor] = []
    following: list[Tensor] = []
    found = 0
    whole = [(row, block) for row in rollouts if (block := block_of(row, prompts, marks)).state == WHOLE]
    for start in range(0, len(whole), batch):
        if found >= wanted:
            break
        group = whole[start : start + batch]
        rows = [[*prompts[row.problem_id], *row.tokens[: block.stop + 1]] for row, block in group]
        ids, mask = pad(rows, 0, "right", model.device)
        with torch.no_grad():
            hidden_BTD = last_hidden(model, input_ids=ids, mask=mask)
        for index, (row, _) in enumerate(group):
            first, last = len(prompts[row.problem_id]) - 1, len(rows[index]) - 1
            states.append(hidden_BTD[index, first:last].float())
            following.append(ids[index, first + 1 : last + 1])
            found += last - first
    if not states:
        raise DataError("no rollout has a whole think block to fit the projection head on: set distil.head_fit.steps to 0")
    return torch.cat(states), torch.cat(following)


def fit_head(
    head: ProjectionHead,
    model: PreTrainedModel,
    states: Float[Tensor, "N D"],
    following: Int[Tensor, " N"],
    recipe: HeadFit,
    seed: int,
) -> float:
    """Trains the head in place by Adam with a linearly falling rate; returns the last step's error.

    The error of a batch is the mean square between head(h) and the next token's embedding over the mean square of those
    embeddings: 1 for a head that says nothing.
    """
    embeddings = model.get_input_embeddings().weight
    assert isinstance(embeddings, Tensor), "input embeddings have a weight"
    targets = embeddings.detach().float()[following]
    optimizer = torch.optim.Adam(head.parameters(), lr=recipe.lr, fused=True)
    generator = torch.Generator().manual_seed(seed)
    error = torch.ones(())
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * (1 - step / recipe.steps)
        at = torch.randint(len(states), (recipe.batch,), generator=generator).to(states.device)
        error = (head(states[at]) - targets[at]).square().mean() / targets[at].square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    return error.item()
