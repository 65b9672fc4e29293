from dataclasses import replace
from typing import Any

import pytest

from qthink_core.artifacts.rollouts import Rollout
from qthink_core.method.targets import ANSWER, THINK_AND_ANSWER, Limit, choose_right, examples, from_gold, from_rollouts
from qthink_core.method.think import marks

WIDE = Limit(100, "only_if_whole")


def rollout(tokenizer: Any, text: str, index: int = 0, name: str = "p") -> Rollout:
    tokens = tokenizer(text)["input_ids"]
    return Rollout(tokens, text, "stop" if text.endswith("<|im_end|>") else "length", problem_id=name, rollout=index)


def problem(tokenizer: Any, ending: str = "", **fields: Any) -> dict[str, Any]:
    prompt = tokenizer("<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n" + ending)["input_ids"]
    return {
        "prompt_thinking": prompt,
        "prompt_direct": [*prompt, *tokenizer("<think>\n\n</think>\n\n")["input_ids"]],
    } | fields


RIGHT = "<think>\n1 + 1 = 2\n</think>\n\nThe answer is 2.<|im_end|>"


def one_target(
    tokenizer: Any, text: str, kind: str, limit: Limit = WIDE, ending: str = ""
) -> tuple[list[int] | None, dict[str, int]]:
    made, counts = from_rollouts(
        {"p": problem(tokenizer, ending)},
        {"p": [rollout(tokenizer, text)]},
        {"p": [1]},
        marks(tokenizer),
        kind=kind,
        seed=0,
        limit=limit,
    )
    return made.get("p"), counts


def test_the_chosen_rollout_is_right_and_depends_on_no_order() -> None:
    sampled = [Rollout([index], "", "stop", problem_id="p", rollout=index) for index in range(16)]
    rewards = [int(index % 3 == 0) for index in range(16)]
    chosen = choose_right(sampled, rewards, seed=0)
    assert chosen is not None
    assert chosen.rollout % 3 == 0
    for order in (range(15, -1, -1), [7, 3, 0, 15, 12, 9, 6, 1]):
        some = [sampled[i] for i in order]
        again = choose_right(some, [rewards[i] for i in order], seed=0)
        assert chosen not in some or again == chosen


def test_another_seed_or_problem_chooses_among_all_right_rollouts() -> None:
    sampled = [Rollout([index], "", "stop", problem_id="p", rollout=index) for index in range(4)]
    by_seed = [choose_right(sampled, [1, 1, 0, 1], seed) for seed in range(40)]
    assert {row.rollout for row in by_seed if row} == {0, 1, 3}
    by_problem = [choose_right([replace(row, problem_id=f"p{n}") for row in sampled], [1, 1, 0, 1], 0) for n in range(40)]
    assert {row.rollout for row in by_problem if row} == {0, 1, 3}


def test_no_right_rollout_is_no_target() -> None:
    sampled = [Rollout([index], "", "stop", problem_id="p", rollout=index) for index in range(4)]
    assert choose_right(sampled, [0, 0, 0, 0], seed=0) is None
    assert choose_right([], [], seed=0) is None


def test_the_answer_is_what_follows_the_block_and_its_newlines(tokenizer: Any) -> None:
    target, counts = one_target(tokenizer, RIGHT, ANSWER)
    assert tokenizer.decode(target) == "The answer is 2.<|im_end|>"
    assert counts == {"target_cut": 0, "target_missing": 0}


def test_think_and_answer_is_the_whole_completion(tokenizer: Any) -> None:
    target, _ = one_target(tokenizer, RIGHT, THINK_AND_ANSWER)
    assert target == tokenizer(RIGHT)["input_ids"]


def test_a_block_that_the_prompt_opened_is_kept_without_its_mark(tokenizer: Any) -> None:
    text = "1 + 1 = 2\n</think>\n\n2<|im_end|>"
    assert tokenizer.decode(one_target(tokenizer, text, THINK_AND_ANSWER, ending="<think>\n")[0]) == text
    assert tokenizer.decode(one_target(tokenizer, text, ANSWER, ending="<think>\n")[0]) == "2<|im_end|>"


@pytest.mark.parametrize("kind", [ANSWER, THINK_AND_ANSWER])
def test_an_answer_cut_at_the_limit_has_no_end_token_unless_always(tokenizer: Any, kind: str) -> None:
    eos = tokenizer.eos_token_id
    whole, _ = one_target(tokenizer, RIGHT, kind)
    assert whole is not None
    answer, _ = one_target(tokenizer, RIGHT, ANSWER)
    n = len(answer or [])
    for limit in range(1, n):
        cut, counts = one_target(tokenizer, RIGHT, kind, Limit(limit, "only_if_whole"))
        assert cut == whole[: len(whole) - n + limit]
        assert eos not in cut
        ended, _ = one_target(tokenizer, RIGHT, kind, Limit(limit, "always"))
        assert ended == [*whole[: len(whole) - n + limit - 1], eos]
        assert counts["target_cut"] == 1
    for end_token in ("only_if_whole", "always"):
        assert one_target(tokenizer, RIGHT, kind, Limit(n, end_token)) == (whole, {"target_cut": 0, "target_missing": 0})


@pytest.mark.parametrize("end_token", ["only_if_whole", "always"])
def test_a_rollout_that_ran_into_the_token_limit_has_no_end_token(tokenizer: Any, end_token: str) -> None:
    text = "<think>\n1 + 1 = 2\n</think>\n\nThe answer is 2"
    target, _ = one_target(tokenizer, text, ANSWER, Limit(100, end_token))
    assert tokenizer.decode(target) == "The answer is 2"


@pytest.mark.parametrize("text", ["The answer is 2.<|im_end|>", "<think>\n1 + 1 = 2", "<think>\nThe answer is 2<|im_end|>"])
def test_a_right_rollout_whose_block_never_closes_is_no_target(tokenizer: Any, text: str) -> None:
    assert one_target(tokenizer, text, ANSWER) == (None, {"target_cut": 0, "target_missing": 1})


def test_a_target_is_looked_for_among_all_right_rollouts(tokenizer: Any) -> None:
    """Whichever right rollout comes first in the seeded order: one without an answer behind a block gives way."""
    sampled = [rollout(tokenizer, "The answer is 2.<|im_end|>", index) for index in range(3)]
    sampled[1] = rollout(tokenizer, RIGHT, 1)
    for seed in range(12):
        made, counts = from_rollouts(
            {"p": problem(tokenizer)}, {"p": sampled}, {"p": [1, 1, 1]}, marks(tokenizer), kind=ANSWER, seed=seed, limit=WIDE
        )
        assert tokenizer.decode(made["p"]) == "The answer is 2.<|im_end|>"
        assert counts["target_missing"] == 0


def test_a_problem_without_a_right_rollout_is_counted_as_missing(tokenizer: Any) -> None:
    made, counts = from_rollouts(
        {"p": problem(tokenizer), "unsampled": problem(tokenizer)},
        {"p": [rollout(tokenizer, RIGHT)]},
        {"p": [0]},
        marks(tokenizer),
        kind=ANSWER,
        seed=0,
        limit=WIDE,
    )
    assert made == {}
    assert counts == {"target_cut": 0, "target_missing": 2}


@pytest.mark.parametrize(
    ("kind", "opened", "rationale", "expected"),
    [
        (ANSWER, False, "1 + 1 = 2", "#### 2<|im_end|>"),
        (THINK_AND_ANSWER, False, "1 + 1 = 2", "<think>\n1 + 1 = 2\n</think>\n\n#### 2<|im_end|>"),
        (THINK_AND_ANSWER, True, "1 + 1 = 2", "1 + 1 = 2\n</think>\n\n#### 2<|im_end|>"),
        (THINK_AND_ANSWER, False, None, "<think>\n\n</think>\n\n#### 2<|im_end|>"),
    ],
)
def test_a_gold_target_is_the_published_solution(
    tokenizer: Any, kind: str, opened: bool, rationale: str | None, expected: str
) -> None:
    rows = {"p": problem(tokenizer, "<think>\n" if opened else "", target_gold="#### 2", rationale=rationale)}
    made, counts = from_gold(rows, tokenizer, kind=kind, limit=WIDE)
    assert tokenizer.decode(made["p"]) == expected
    assert counts == {"target_cut": 0, "target_missing": 0}
    cut, counts = from_gold(rows, tokenizer, kind=kind, limit=Limit(1, "only_if_whole"))
    assert tokenizer.eos_token_id not in cut["p"]
    assert counts["target_cut"] == 1


def test_what_is_left_out_of_training_is_counted() -> None:
    def of(n: int) -> dict[str, Any]:
        return {"prompt_thinking": [7] * (n - 4), "prompt_direct": [7] * n}

    rows = {"long": of(13), "fits": of(12), "taught": of(9), "neither": of(9), "both": of(5)}
    targets = {"long": [1], "fits": [1, 2], "both": [3]}
    options: dict[str, Any] = {"prompt_max_tokens": 12, "with_teacher": frozenset({"both", "taught", "long"})}
    kept, counts = examples(rows, targets, thinking=False, **options)
    assert [(row.problem_id, len(row.prompt), row.target) for row in kept] == [
        ("both", 5, [3]),
        ("fits", 12, [1, 2]),
        ("taught", 9, []),
    ]
    assert counts == {"prompt_too_long": 1, "nothing_to_learn": 1, "distillation_only": 1, "examples": 3}
    # the prompt that asks for thinking is four tokens shorter: never cut, it is in
    kept, counts = examples(rows, targets, thinking=True, **options)
    assert [len(row.prompt) for row in kept] == [1, 8, 9, 5]
    assert counts["prompt_too_long"] == 0
