"""Units: which requests are made together, and how their completions are drawn."""

from pathlib import Path

import pytest

from qthink_core.artifacts.store import set_of
from qthink_core.generation.requests import Request, Sampling
from qthink_core.generation.units import Unit, longest, plan_answers, plan_rollouts
from qthink_core.models.loading import QThinkConfig

MODEL, SAMPLING = Path("model"), Sampling(seed=7, temperature=0.6, top_p=0.95, top_k=20)
PROBLEMS = [{"id": one, "prompt_thinking": [0] * n, "prompt_direct": [n]} for one, n in (("a", 3), ("b", 1), ("c", 2))]
THINKING, LATENT = QThinkConfig(0, True), QThinkConfig(6, False)


def test_a_block_holds_the_prompts_of_whole_problems_in_sorted_order() -> None:
    found = plan_rollouts(MODEL, {"c": [3], "a": [1], "b": [2]}, 2, 4, SAMPLING)
    assert found == {
        "block-00000": Unit(MODEL, THINKING, None, [Request("a", [1], 4, SAMPLING), Request("b", [2], 4, SAMPLING)]),
        "block-00001": Unit(MODEL, THINKING, None, [Request("c", [3], 4, SAMPLING)]),
    }


def test_a_batch_holds_the_prompts_that_a_model_is_asked_with_shortest_first() -> None:
    found = plan_answers(MODEL, THINKING, None, PROBLEMS, 2)
    assert found["batch-00000"] == Unit(MODEL, THINKING, None, [Request("b", [0]), Request("c", [0, 0])])
    assert list(plan_answers(MODEL, LATENT, 5, PROBLEMS, 2)) == ["seed-5-batch-00000", "seed-5-batch-00001"]
    direct = plan_answers(MODEL, LATENT, 5, PROBLEMS, 3)["seed-5-batch-00000"]
    assert direct == Unit(MODEL, LATENT, 5, [Request("a", [3]), Request("b", [1]), Request("c", [2])])


def test_the_questions_of_a_test_set_are_batches_of_their_own() -> None:
    own, other = (plan_answers(MODEL, LATENT, 5, PROBLEMS, 2, test_set=name) for name in ("", "svamp"))
    assert list(other) == ["svamp.seed-5-batch-00000", "svamp.seed-5-batch-00001"]
    assert list(other.values()) == list(own.values())
    assert [set_of(name) for name in (*own, *other)] == ["", "", "svamp", "svamp"]


@pytest.mark.parametrize("config", [THINKING, LATENT, QThinkConfig(0, False), QThinkConfig(6, True)])
@pytest.mark.parametrize("seed", [None, 0, 3])
def test_thoughts_alone_are_sampled_by_draws_of_their_training(config: QThinkConfig, seed: int | None) -> None:
    (unit,) = plan_answers(MODEL, config, seed, PROBLEMS, 3, SAMPLING).values()
    expected = SAMPLING.of_training(seed) if config == THINKING else None
    assert [one.sampling for one in unit.requests] == [expected] * 3


def test_the_longest_prompt_of_a_plan_is_measured_in_tokens() -> None:
    assert longest(plan_answers(MODEL, THINKING, None, PROBLEMS, 2)) == 3
    assert longest({}) == 0
