import hashlib
import itertools
import json
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import WORLD

from qthink_core.benchmarks.generated import BUCKETS, TASKS, Worked, bucket, worked
from qthink_core.benchmarks.generated.chains import Step, slipped, thought, values, working
from qthink_core.benchmarks.graders import grade, grader
from qthink_core.errors import ParamError

EXACT = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b}


@pytest.fixture(scope="module", params=list(TASKS))
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def question(task: str, problem: Worked, index: int = 0) -> str:
    return grader(task).problem(problem.row, index, "test").question


def result(problem: Worked) -> int:
    return problem.steps[-1].result


@pytest.mark.slow
def test_the_benchmark_grades_every_written_answer_right(task: str) -> None:
    for index, problem in enumerate(worked(task, "test", 500, seed=3, world=WORLD)):
        gold = grader(task).problem(problem.row, index, "test").gold
        text = f"<think>\n{thought(values(problem.steps), 'Start')}\n</think>\n\n{problem.answer(result(problem))}"
        assert grade(task, gold, text).verdict == "right"


def test_the_answer_of_a_slip_is_graded_wrong(task: str) -> None:
    for index, problem in enumerate(worked(task, "test", 30, seed=3, world=WORLD)):
        gold = grader(task).problem(problem.row, index, "test").gold
        assert grade(task, gold, problem.answer(result(problem) + 1)).verdict == "wrong"


def test_every_step_is_true_starts_where_the_last_one_ended_and_stays_in_the_world(task: str) -> None:
    for problem in worked(task, "test", 300, seed=4, world=WORLD):
        assert len(problem.steps) == WORLD.changes
        for step in problem.steps:
            assert EXACT[step.sign](step.left, step.operand) == step.result
            assert 1 <= step.result <= WORLD.largest
            assert step.operand <= WORLD.largest_operand
        assert all(before.result == after.left for before, after in itertools.pairwise(problem.steps))


def test_a_thought_is_the_start_value_and_every_result() -> None:
    steps = [Step(9, "+", 3, 12), Step(12, "-", 5, 7), Step(7, "*", 2, 14), Step(14, "/", 2, 7)]
    assert thought(values(steps), "Start") == " Start 9 12 7 14 7"
    assert thought(values(steps), None) == " 9 12 7 14 7"


def test_a_slip_forgets_one_in_a_borrow_and_the_rest_follows_from_it() -> None:
    """12 - 5 goes from 12 to below ten, so it borrows; 14 / 2 does too, but it is not a subtraction."""
    steps = [Step(9, "+", 3, 12), Step(12, "-", 5, 7), Step(7, "*", 2, 14), Step(14, "/", 2, 7)]
    rng = np.random.default_rng(0)
    assert slipped(steps, rng, 0.0, WORLD) == [9, 12, 7, 14, 7]
    always = 1.0 - 2**-53
    # 8 * 2 = 16 is more than the world's 14, so it is taken to 14
    assert slipped(steps, rng, always, WORLD) == [9, 12, 8, 14, 7]
    assert slipped([Step(13, "-", 2, 11)], rng, always, WORLD) == [13, 11]
    # from ten itself is a borrow, down to ten is none
    assert slipped([Step(10, "-", 2, 8)], rng, always, WORLD) == [10, 9]
    assert slipped([Step(12, "-", 2, 10)], rng, always, WORLD) == [12, 10]


def test_so_many_borrows_slip_as_the_share_says() -> None:
    steps, rng = [Step(12, "-", 5, 7)], np.random.default_rng(1)
    found = Counter(slipped(steps, rng, 0.25, WORLD)[-1] for _ in range(4000))
    # four standard errors of a share of 0.25 over 4,000 draws
    assert abs(found[8] / 4000 - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5
    assert set(found) == {7, 8}


def test_a_problem_has_a_borrow_often_enough_for_mixed_rollouts(task: str) -> None:
    """At least a quarter of the problems can go wrong, so that uniform and reward-weighted teachers differ."""
    problems = worked(task, "train", 400, seed=0, world=WORLD)
    hard = [any(step.sign == "-" and step.left >= 10 > step.result for step in problem.steps) for problem in problems]
    assert np.mean(hard) > 0.25


def test_the_question_tells_every_operand_in_order() -> None:
    """Doubling and halving are told in words."""
    for problem in worked("gsm8k", "test", 300, seed=4, world=WORLD):
        told = [problem.steps[0].left, *(step.operand for step in problem.steps if step.sign in "+-")]
        assert [int(number) for number in re.findall(r"\d+", question("gsm8k", problem))] == told


@pytest.mark.slow
def test_the_computer_algebra_of_the_grader_finds_the_same_value() -> None:
    for problem in worked("math500", "test", 20, seed=4, world=WORLD):
        expression = str(problem.row["problem"]).removeprefix("Compute $").removesuffix("$.")
        assert grade("math500", str(problem.row["answer"]), f"$\\boxed{{{expression}}}$").verdict == "right"


def test_the_thought_is_in_no_question_and_in_no_answer(task: str) -> None:
    for problem in worked(task, "test", 100, seed=4, world=WORLD):
        text = thought(values(problem.steps), None)
        assert text not in problem.answer(result(problem))
        assert text not in question(task, problem)


def test_a_tool_prompt_has_the_published_skeleton() -> None:
    """The frame of the 68 published prompts, word for word."""
    for problem in worked("tooluse", "test", 50, seed=4, world=WORLD):
        prompt = str(problem.row["prompt"])
        assert prompt.startswith("Your task is to answer the user's question using available tools. \nYou have access")
        assert "\n\nUse the following format:\nThought: you should always" in prompt
        assert "\n\nBegin!\nQuestion: " in prompt
        (call,) = json.loads(str(problem.row["answer"]))
        documented = re.findall(r"\n(\w+): .*\nParameters: (\{.*\})", prompt)
        assert json.loads(dict(documented)[call["Action"]]).keys() == json.loads(call["Action_Input"]).keys()
        assert len(documented) >= 2


@settings(max_examples=20, deadline=None)
@given(st.tuples(st.sampled_from(list(TASKS)), st.sampled_from(list(BUCKETS)), st.integers(0, 2**31)))
def test_a_split_holds_only_computations_of_its_own_buckets(drawn: tuple[str, str, int]) -> None:
    task, split, seed = drawn
    problems = worked(task, split, 20, seed, WORLD)
    assert all(bucket(working(problem.steps)) in BUCKETS[split] for problem in problems)


def test_buckets_belong_to_one_split_each() -> None:
    assert sorted(itertools.chain(*BUCKETS.values())) == list(range(100))


@pytest.mark.slow
def test_problems_are_distinct_and_there_are_enough_of_them(task: str) -> None:
    for split, n in {"pretrain": 8_000, "train": 4_000, "validation": 1_000, "test": 1_000}.items():
        assert len({working(problem.steps) for problem in worked(task, split, n, seed=0, world=WORLD)}) == n


@pytest.mark.parametrize(("split", "lower"), [("test", r"prepare\.n_test"), ("pretrain", r"base\.pretrain\.steps or")])
def test_a_world_with_too_few_problems_is_refused_with_what_to_change(split: str, lower: str) -> None:
    small = WORLD.model_copy(update={"changes": 1})
    with pytest.raises(ParamError, match=rf"1000 {split} problems of gsm8k are asked for.*lower {lower}.*raise world\."):
        worked("gsm8k", split, 1000, seed=0, world=small)


def test_problems_are_counted_as_they_are_drawn() -> None:
    numbers: list[int] = []

    def show(items: range, total: int) -> range:
        assert total == 7
        return [item for item in items if numbers.append(item) is None]  # type: ignore[func-returns-value,return-value]

    assert len(worked("gsm8k", "train", 7, seed=7, world=WORLD, show=show)) == 7
    assert numbers == list(range(7))


def test_a_longer_draw_begins_with_the_shorter_one(task: str) -> None:
    assert worked(task, "train", 40, seed=7, world=WORLD)[:15] == worked(task, "train", 15, seed=7, world=WORLD)


def test_another_seed_gives_other_problems(task: str) -> None:
    assert worked(task, "train", 20, seed=7, world=WORLD) != worked(task, "train", 20, seed=8, world=WORLD)


# sha256 of 100 training problems at seed 1234; the generator's stream is part of what a run is reproduced by.
RECORDED = {
    "gsm8k": "420750dd004a07034c498a723930cdf648e81dc8d242d85a344b365c48d2ac1b",
    "math500": "c73cb2928877c158ba7e9430d12a67a9ee01b52d98247b38b923ece55f339bf8",
    "tooluse": "fc8715e3c188d0c3f75fcdf21cea0b2b624195192450c55a1a3afe416a25b58c",
}


def test_the_bytes_are_those_on_record(task: str) -> None:
    text = json.dumps([problem.row for problem in worked(task, "train", 100, seed=1234, world=WORLD)])
    assert hashlib.sha256(text.encode()).hexdigest() == RECORDED[task]


def test_an_unknown_task_or_split_is_refused_by_name() -> None:
    with pytest.raises(ParamError, match="gsm8k, math500, tooluse"):
        worked("gsm9k", "test", 1, seed=0, world=WORLD)
    with pytest.raises(ParamError, match="pretrain, train, validation, test"):
        worked("gsm8k", "dev", 1, seed=0, world=WORLD)


def test_generating_needs_no_torch() -> None:
    code = "import sys; import qthink_core.benchmarks.generated; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
