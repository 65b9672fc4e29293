"""Answers: greedy, but for rows that think where thoughts are sampled."""

from collections.abc import Callable
from typing import Any

import pytest

from qthink_core.generation.answering import answer
from qthink_core.generation.decoding import Sampling, answer_key
from qthink_core.generation.sampling import sample_block
from qthink_core.models.loading import System

LIMIT = 24
HOW: dict[str, Any] = {"temperature": 0.6, "top_p": 0.95, "top_k": 20}
SAMPLING = Sampling(seed=7, **HOW)


@pytest.fixture
def thinker(qwen3: Callable[..., Any], tokenizer: Any) -> System:
    """A model without latent steps that is asked to think, in float64, so that rounding moves no token."""
    return System(qwen3("float64"), tokenizer, None, 0, thinking=True)


@pytest.fixture
def prompts(questions: list[list[int]]) -> dict[str, list[int]]:
    return {f"q{index:02}": prompt for index, prompt in enumerate(questions[:9])}


def tokens(*given: Any) -> dict[str, list[int]]:
    return {row.problem_id: row.tokens for row in answer(*given)}


def test_a_sampled_answer_of_the_base_is_rollout_0_of_its_question(
    thinker: System, tokenizer: Any, prompts: dict[str, list[int]]
) -> None:
    rows = sample_block(thinker.model, tokenizer, prompts, G=1, seed=7, max_new_tokens=LIMIT, **HOW)
    assert tokens(thinker, prompts, LIMIT, None, SAMPLING) == {row.problem_id: row.tokens for row in rows}


def test_a_sampled_answer_depends_on_seed_question_and_training_and_not_on_its_batch(
    thinker: System, prompts: dict[str, list[int]]
) -> None:
    found = tokens(thinker, prompts, LIMIT, 3, SAMPLING)
    alone = {name: tokens(thinker, {name: prompts[name]}, LIMIT, 3, SAMPLING)[name] for name in prompts}
    assert alone == found
    others = [tokens(thinker, prompts, LIMIT, 4, SAMPLING), tokens(thinker, prompts, LIMIT, 3, SAMPLING._replace(seed=8))]
    others.append(tokens(thinker, prompts, LIMIT, None, SAMPLING))
    for other in others:
        assert sum(found[name] != other[name] for name in prompts) > len(prompts) / 2


def test_the_base_and_the_first_training_draw_from_streams_of_their_own() -> None:
    assert len({tuple(answer_key(0, name, training)) for name in "ab" for training in (None, 0, 1)}) == 6


def test_latent_systems_and_rows_that_do_not_think_stay_greedy(
    thinker: System, random_head: Callable[..., Any], prompts: dict[str, list[int]]
) -> None:
    latent = thinker._replace(head=random_head(dtype="float64"), K=3)
    for system in (thinker._replace(thinking=False), latent, latent._replace(thinking=False)):
        assert tokens(system, prompts, LIMIT, 3, SAMPLING) == tokens(system, prompts, LIMIT, 3)
    assert tokens(thinker, prompts, LIMIT, 3, SAMPLING) != tokens(thinker, prompts, LIMIT, 3)
