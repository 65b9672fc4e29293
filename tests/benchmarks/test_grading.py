"""Verdicts on rollouts and answers: one for each text, none dropped, and 1 only for `right`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qthink_core.artifacts import grades
from qthink_core.artifacts.answers import Answer
from qthink_core.artifacts.conditions import TRAINED
from qthink_core.artifacts.grades import Graded, Reward
from qthink_core.artifacts.rollouts import Rollout
from qthink_core.benchmarks import grading
from qthink_core.benchmarks.graders.contract import Grade
from qthink_core.errors import DataError

GOLDS = {"p0": "4", "p1": "5"}


def rollout(problem: str, index: int, text: str) -> Rollout:
    return Rollout([1, 2, 3], text, "stop", problem_id=problem, rollout=index)


def answer(problem: str, text: str, tokens: int = 3, finish: str = "stop") -> Answer:
    return Answer([7] * tokens, text, finish, problem_id=problem, seed=0, condition=TRAINED)


@pytest.fixture
def graded_texts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(gold, text) of every call of the benchmark's grader, which does its work."""
    calls: list[tuple[str, str]] = []
    grade = grading.grade

    def noted(task: str, gold: str, text: str) -> Grade:
        calls.append((gold, text))
        return grade(task, gold, text)

    monkeypatch.setattr(grading, "grade", noted)
    return calls


def test_equal_rollouts_of_a_problem_are_graded_once_and_counted_each(graded_texts: list[tuple[str, str]]) -> None:
    rows = [
        rollout("p0", 0, "The answer is 4"),
        rollout("p0", 1, "The answer is 4"),
        rollout("p0", 2, "The answer is 5"),
        rollout("p0", 3, "The answer is 4"),
    ]
    rewards = grading.grade_rollouts("gsm8k", GOLDS, rows)
    assert [one.verdict for one in rewards] == ["right", "right", "wrong", "right"]
    assert [one.rollout for one in rewards] == [0, 1, 2, 3]
    assert graded_texts == [("4", "The answer is 4"), ("4", "The answer is 5")]
    assert grading.verdict_counts(rewards) == {"right": 3, "wrong": 1}


def test_the_same_text_is_right_for_one_problem_and_wrong_for_another() -> None:
    rewards = grading.grade_rollouts("gsm8k", GOLDS, [rollout("p0", 0, "It is 4"), rollout("p1", 0, "It is 4")])
    assert rewards == [Reward("p0", 0, "right"), Reward("p1", 0, "wrong")]


def test_the_reward_is_one_for_right_and_zero_for_every_other_verdict(tmp_path: Path) -> None:
    rows = [
        Reward("p0", index, verdict)
        for index, verdict in enumerate(["right", "wrong", "unparsable", "over_limit", "timeout"])
    ]
    grades.rewards_writer([*rows, Reward("p1", 0, "right")])(tmp_path / "rewards.parquet")
    assert grades.read_rewards(tmp_path) == {"p0": {0: 1, 1: 0, 2: 0, 3: 0, 4: 0}, "p1": {0: 1}}


def test_every_answer_gets_a_verdict_and_none_is_dropped() -> None:
    answers = [
        answer("p0", "The answer is 4"),
        answer("p1", "The answer is 4", tokens=9, finish="length"),
        answer("p2", ""),
        answer("p3", "5" * 200_000),
        answer("p4", "\ud800\x00\x1b[J"),
    ]
    golds = {"p0": "4", "p1": "5", "p2": "4", "p3": "5", "p4": "5"}
    graded = grading.grade_answers("gsm8k", golds, [("uniform", answers)])
    assert [row.verdict for row in graded] == ["right", "wrong", "unparsable", "over_limit", "unparsable"]
    assert graded[1] == Graded("uniform", 0, TRAINED, "p1", "wrong", "4", "{}", 9, "length")
    assert grading.verdict_counts(graded) == {"over_limit": 1, "right": 1, "unparsable": 2, "wrong": 1}


def test_numbers_in_the_think_block_are_no_answer() -> None:
    texts = [
        "<think>\nIt is 4.\n</think>\n\nThe answer is 5",
        "<think>\nIt is 5.\n</think>\n\nThe answer is 4",
        "<think>\nIt is 4.",
    ]
    golds = dict.fromkeys(("p0", "p1", "p2"), "4")
    graded = grading.grade_answers("gsm8k", golds, [("base", list(map(answer, golds, texts)))])
    assert [row.verdict for row in graded] == ["wrong", "right", "unparsable"]


def test_the_further_scores_of_a_benchmark_are_kept_with_the_verdict() -> None:
    gold = json.dumps([{"Action": "search", "Action_Input": '{"city": "Rome"}'}])
    ids = ["p0", "p1", "p2"]
    texts = [
        'Action: search\nAction Input: {"city": "Rome"}',
        'Action: search\nAction Input: {"city": "Oslo"}',
        'Action: book\nAction Input: {"city": "Rome"}',
    ]
    graded = grading.grade_answers("tooluse", dict.fromkeys(ids, gold), [("uniform", list(map(answer, ids, texts)))])
    assert [row.verdict for row in graded] == ["right", "wrong", "wrong"]
    assert [json.loads(row.details)["strict_action"] for row in graded] == [True, True, False]
    assert all(row.details == json.dumps(json.loads(row.details), sort_keys=True) for row in graded)


def test_grades_read_back_are_those_written(tmp_path: Path) -> None:
    answers = [answer("p0", "It is 4"), answer("p1", "none", finish="length")]
    rows = grading.grade_answers("gsm8k", GOLDS, [("base", answers)])
    assert rows[1].extracted is None
    grades.grades_writer(rows)(tmp_path / "grades.parquet")
    assert grades.read_grades(tmp_path) == rows


@pytest.mark.parametrize("texts", [["p0"], ["p0", "p1", "p1"], ["p0", "p2"]])
def test_answers_to_other_questions_than_the_whole_set_are_refused(texts: list[str]) -> None:
    with pytest.raises(DataError, match=r"uniform \(seed 0, trained\) has . answers to the 2 questions"):
        grading.grade_answers("gsm8k", GOLDS, [("uniform", [answer(name, "4") for name in texts])])


def test_a_system_without_answers_or_with_a_seed_or_condition_that_lacks_one_is_refused() -> None:
    whole = [answer(name, "4") for name in GOLDS]
    for extra in ([replace(whole[0], seed=1)], [replace(whole[0], condition="zeros")]):
        with pytest.raises(DataError, match="has 1 answers to the 2 questions"):
            grading.grade_answers("gsm8k", GOLDS, [("uniform", whole + extra)])
    with pytest.raises(DataError, match="uniform has no answers to the 2 questions of gsm8k"):
        grading.grade_answers("gsm8k", GOLDS, [("uniform", [])])
    probed = [replace(row, seed=1, condition="zeros") for row in whole]
    with pytest.raises(DataError, match=r"uniform \(seed 1\) has answers under zeros but not as trained: run `dvc repro`$"):
        grading.grade_answers("gsm8k", GOLDS, [("uniform", whole + probed)])


def test_equal_answers_of_all_systems_seeds_and_conditions_are_graded_once(graded_texts: list[tuple[str, str]]) -> None:
    whole = [answer(name, "It is 4") for name in GOLDS]
    rows = whole + [replace(row, seed=1) for row in whole] + [replace(row, condition="zeros") for row in whole]
    graded = grading.grade_answers("gsm8k", GOLDS, [("uniform", rows), ("base", whole)])
    assert len(graded) == 8
    assert graded_texts == [("4", "It is 4"), ("5", "It is 4")]
