from pathlib import Path
from typing import Any

import pytest
from engines import sample

from qthink_core.artifacts.rollouts import Rollout
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.generation.requests import Sampling
from qthink_core.generation.units import plan_rollouts, rollouts_of
from qthink_core.models.loading import System

SAMPLING = Sampling(seed=0, temperature=0.6, top_p=0.95, top_k=20)
LIMIT = 24


def engine(model: Any, tokenizer: Any) -> HFEngine:
    return HFEngine(System(model, tokenizer, None, 0, thinking=True), LIMIT)


def sampled(
    model: Any, tokenizer: Any, prompts: dict[str, list[int]], block: int, G: int = 4, seed: int = 0
) -> dict[tuple[str, int], Rollout]:
    """The rollouts of all prompts, in blocks of the plan, by problem and index."""
    plan = plan_rollouts(Path("base"), prompts, block, G, SAMPLING._replace(seed=seed))
    made = engine(model, tokenizer)
    rows = [row for unit in plan.values() for row in rollouts_of(unit.requests, made.generate(unit.requests))]
    return {(row.problem_id, row.rollout): row for row in rows}


def named(questions: list[list[int]], n: int) -> dict[str, list[int]]:
    return {f"p{index:02}": prompt for index, prompt in enumerate(questions[:n])}


@pytest.mark.slow
def test_a_rollout_does_not_depend_on_block_size_neighbours_or_their_number(
    qwen3: Any, tokenizer: Any, questions: list[list[int]]
) -> None:
    """Float64, so that the batch's rounding cannot move a token: what is left is the seed of the rollout (decision 16)."""
    model, prompts = qwen3("float64"), named(questions, 13)
    alone = sampled(model, tokenizer, prompts, block=1)
    assert len(alone) == 13 * 4
    assert sampled(model, tokenizer, prompts, block=5) == alone
    assert sampled(model, tokenizer, dict(reversed(prompts.items())), block=13) == alone
    few = {name: prompts[name] for name in ("p11", "p03")}
    assert sampled(model, tokenizer, few, block=2).items() <= alone.items()
    more = sampled(model, tokenizer, prompts, block=4, G=6)
    assert alone.items() <= more.items()


def test_the_same_call_gives_the_same_rollouts_and_another_seed_gives_others(
    qwen3: Any, tokenizer: Any, questions: list[list[int]]
) -> None:
    model, prompts = qwen3(), named(questions, 6)
    first = sampled(model, tokenizer, prompts, block=6)
    assert sampled(model, tokenizer, prompts, block=6) == first
    other = sampled(model, tokenizer, prompts, block=6, seed=1)
    assert sum(first[key].tokens != other[key].tokens for key in first) > len(first) / 2


def test_the_rollouts_of_a_problem_differ_from_each_other(qwen3: Any, tokenizer: Any, questions: list[list[int]]) -> None:
    rows = sampled(qwen3(), tokenizer, named(questions, 4), block=4, G=8)
    for name in named(questions, 4):
        assert len({tuple(rows[name, index].tokens) for index in range(8)}) > 4


def test_a_prompt_is_read_once_for_all_its_rollouts(qwen3: Any, tokenizer: Any, questions: list[list[int]]) -> None:
    model, prompts = qwen3(), named(questions, 5)
    calls: list[tuple[int, ...]] = []
    model.model.layers[0].register_forward_pre_hook(lambda _, inputs: calls.append(tuple(inputs[0].shape[:2])))
    rows = sample(engine(model, tokenizer), prompts, 8, SAMPLING)
    assert calls[0] == (1, sum(len(prompt) for prompt in prompts.values()))
    assert all(length == 1 for _, length in calls[1:])
    # and so is a beginning that several of them share
    begun = {(row.problem_id, *row.tokens[:length]) for row in rows for length in range(1, len(row.tokens))}
    assert sum(n_rows for n_rows, _ in calls[1:]) == len(begun) < sum(len(row.tokens) for row in rows) - 5 * 8


def test_the_stored_text_is_that_of_the_tokens_without_special_ones(
    qwen3: Any, tokenizer: Any, questions: list[list[int]]
) -> None:
    rows = sampled(qwen3(), tokenizer, named(questions, 4), block=4)
    assert {row.finish for row in rows.values()} == {"stop", "length"}
    for row in rows.values():
        assert row.text == tokenizer.decode(row.tokens, skip_special_tokens=True)
        assert (row.tokens[-1] == tokenizer.eos_token_id) == (row.finish == "stop")
