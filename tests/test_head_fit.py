"""The projection head's start: what it is fitted to, and that it then says the next token."""

import pytest
import torch

from qthink_core.errors import DataError
from qthink_core.head_fit import fit_head, next_tokens
from qthink_core.projection_head import ProjectionHead
from qthink_core.recipe import HeadFit
from qthink_core.rollouts import Rollout
from qthink_core.think import Marks

MARKS = Marks(think=1, end_think=2, newlines=frozenset({3}), eos=0)
PROMPTS = {"a": [7, 8, 9], "b": [7, 9]}
A = Rollout("a", 0, [1, 3, 11, 12, 3, 2, 20, 0], "", "stop")
B = Rollout("b", 0, [1, 3, 13, 3, 2, 21, 0], "", "stop")


def test_each_state_of_a_thought_is_paired_with_the_token_that_follows_it(qwen3) -> None:
    """In float64, as in test_latent_steps: one row alone and two with padding then differ by a norm's float32 at most."""
    model = qwen3("float64")
    states, following = next_tokens(model, [A, B], PROMPTS, MARKS, wanted=100, batch=2)
    # from the prompt's last token on: the opening, the thought, and the newline behind it
    assert following.tolist() == [1, 3, 11, 12, 3, 1, 3, 13, 3]
    with torch.no_grad():
        ids = torch.tensor([[*PROMPTS["a"], *A.tokens[:4]]])
        expected = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, 2:]
    torch.testing.assert_close(states[:5], expected.float(), atol=1e-6, rtol=0)


def test_no_more_rollouts_are_read_than_are_wanted(qwen3) -> None:
    _, following = next_tokens(qwen3(), [A, B], PROMPTS, MARKS, wanted=3, batch=1)
    assert following.tolist() == [1, 3, 11, 12, 3]


def test_rollouts_without_a_whole_block_are_refused_with_the_mend(qwen3) -> None:
    cut = A._replace(tokens=[1, 3, 11], finish="length")
    with pytest.raises(DataError, match="to fit the projection head on: set"):
        next_tokens(qwen3(), [cut], PROMPTS, MARKS, wanted=3, batch=1)


def test_a_fitted_head_maps_a_state_next_to_the_embedding_of_its_token(qwen3) -> None:
    """800 steps of 40 states end at 0.04 to 0.07, whatever the draws (six seeds); half of them at 0.15 to 0.28."""
    model = qwen3()
    torch.manual_seed(0)
    embeddings = model.get_input_embeddings().weight.detach()
    states, following = torch.randn(40, model.config.hidden_size), torch.arange(40) % 20
    head = ProjectionHead(model.config.hidden_size)
    recipe = HeadFit(steps=800, states=40, batch=32, lr=3e-3)
    error = fit_head(head, model, states, following, recipe, seed=0)
    assert error < 0.1
    nearest = torch.cdist(head(states), embeddings).argmin(1)
    assert (nearest == following).all()
    again = ProjectionHead(model.config.hidden_size)
    again.load_state_dict(ProjectionHead(model.config.hidden_size).state_dict())
    assert fit_head(again, model, states, following, recipe.model_copy(update={"steps": 1}), seed=0) > 0.5


def test_the_fit_changes_the_head_alone_and_is_the_same_for_the_same_seed(qwen3) -> None:
    model = qwen3()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        head = ProjectionHead(model.config.hidden_size)
        states = torch.randn(40, model.config.hidden_size)
        fit_head(head, model, states, torch.arange(40) % 20, HeadFit(steps=5, states=40, batch=8, lr=1e-3), seed=3)
        found.append(head.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
