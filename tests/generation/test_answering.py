"""Answers: greedy, but for rows that think where thoughts are sampled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines import sample

from qthink_core.generation.hf_engine import HFEngine
from qthink_core.generation.requests import Sampling
from qthink_core.generation.units import plan_answers
from qthink_core.models.loading import QThinkConfig, System

LIMIT = 24
SAMPLING = Sampling(seed=7, temperature=0.6, top_p=0.95, top_k=20)


@pytest.fixture
def thinker(qwen3: Callable[..., Any], tokenizer: Any) -> System:
    """A model without latent steps that is asked to think, in float64, so that rounding moves no token."""
    return System(qwen3("float64"), tokenizer, None, 0, thinking=True)


@pytest.fixture
def prompts(questions: list[list[int]]) -> dict[str, list[int]]:
    return {f"q{index:02}": prompt for index, prompt in enumerate(questions[:9])}


def tokens(
    system: System, prompts: dict[str, list[int]], seed: int | None, sampling: Sampling | None = None
) -> dict[str, list[int]]:
    """The tokens of each answer, as the plan of one batch asks for them."""
    problems = [{"id": name, "prompt_thinking": prompt, "prompt_direct": prompt} for name, prompt in prompts.items()]
    config = QThinkConfig(system.K, system.thinking)
    (unit,) = plan_answers(Path("model"), config, seed, problems, len(problems), sampling).values()
    done = HFEngine(system, LIMIT).generate(unit.requests)
    return {one.problem_id: row.tokens for one, (row,) in zip(unit.requests, done, strict=True)}


@pytest.mark.slow
def test_a_sampled_answer_of_the_base_is_rollout_0_of_its_question(thinker: System, prompts: dict[str, list[int]]) -> None:
    rows = sample(HFEngine(thinker, LIMIT), prompts, 1, SAMPLING)
    assert tokens(thinker, prompts, None, SAMPLING) == {row.problem_id: row.tokens for row in rows}


@pytest.mark.slow
def test_a_sampled_answer_depends_on_seed_question_and_training_and_not_on_its_batch(
    thinker: System, prompts: dict[str, list[int]]
) -> None:
    found = tokens(thinker, prompts, 3, SAMPLING)
    alone = {name: tokens(thinker, {name: prompts[name]}, 3, SAMPLING)[name] for name in prompts}
    assert alone == found
    others = [tokens(thinker, prompts, 4, SAMPLING), tokens(thinker, prompts, 3, SAMPLING._replace(seed=8))]
    others.append(tokens(thinker, prompts, None, SAMPLING))
    for other in others:
        assert sum(found[name] != other[name] for name in prompts) > len(prompts) / 2


def test_the_base_and_the_first_training_draw_from_streams_of_their_own() -> None:
    keys = {tuple(SAMPLING.of_training(training).key(name, 0)) for name in "ab" for training in (None, 0, 1)}
    assert len(keys) == 6


@pytest.mark.slow
def test_latent_systems_and_rows_that_do_not_think_stay_greedy(
    thinker: System, random_head: Callable[..., Any], prompts: dict[str, list[int]]
) -> None:
    latent = thinker._replace(head=random_head(dtype="float64"), K=3)
    for system in (thinker._replace(thinking=False), latent, latent._replace(thinking=False)):
        assert tokens(system, prompts, 3, SAMPLING) == tokens(system, prompts, 3)
    assert tokens(thinker, prompts, 3, SAMPLING) != tokens(thinker, prompts, 3)
