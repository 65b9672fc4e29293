"""Tooluse's page on the published file, and its two scorers on small hand-written answers."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qthink_core.benchmarks.graders import grade, tooluse
from qthink_core.errors import DataError

DATA = Path(__file__).parents[3] / "../shared/data/tooluse/test.json"
needs_data = pytest.mark.skipif(not DATA.is_file(), reason="the published tooluse file is not on this machine")


def rows() -> list[dict]:
    return [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]


def gold(*calls: tuple[str, dict]) -> str:
    return json.dumps([{"Action": name, "Action_Input": json.dumps(inputs)} for name, inputs in calls])


WEATHER = gold(("getWeather", {"city": "Oslo", "days": 3}))
PICTURE = gold(("setProfile", {"id": "u1", "data": {"picture": "a.jpg"}}))


def graded(wanted: str, answer: str):
    return grade("tooluse", wanted, answer)


@needs_data
def test_strict_reaches_all_68_published_golds_and_published_all_but_26_and_33():
    problems = [tooluse.problem(row, index, "test") for index, row in enumerate(rows())]
    assert len(problems) == tooluse.FILES["test"].records
    grades = [graded(problem.gold, tooluse.gold_answer(problem)) for problem in problems]
    assert {g.verdict for g in grades} == {"right"}
    assert [index for index, g in enumerate(grades) if not g.details["published_exact"]] == [26, 33]


@needs_data
def test_the_optional_mark_of_item_33_counts_on_neither_side():
    problem = tooluse.problem(rows()[33], 33, "test")
    rendered = tooluse.gold_answer(problem)
    assert "[Optional]" in problem.gold
    assert "[Optional]" not in problem.question
    assert "\nAction: updateUserProfile\n" in rendered
    marked = rendered.replace("updateUserProfile", "[Optional]updateUserProfile")
    assert graded(problem.gold, marked).verdict == "right"
    assert graded(problem.gold, rendered.partition("\nAction: updateUserProfile")[0]).verdict == "wrong"


@needs_data
def test_a_gold_with_one_argument_changed_never_passes():
    for index, row in enumerate(rows()):
        problem = tooluse.problem(row, index, "test")
        changed = tooluse.gold_answer(problem) + '\nAction Input: {"one more": 1}'
        result = graded(problem.gold, changed)
        assert (result.verdict, result.details["strict_action"]) == ("wrong", True), problem.id
        assert not result.details["published_exact"], problem.id


def sdpo(wanted: str, answer: str) -> tuple[bool, bool]:
    """Exact match and action accuracy by SDPO's rules, written from the definitions on the page."""
    calls = json.loads(wanted)
    inputs: dict = {}
    for call in calls:
        inputs.update(json.loads(call["Action_Input"]))
    found: dict = {}
    for block in re.findall(r"Action Input:\s*({.*?})", answer, re.DOTALL):
        try:
            found.update(json.loads(block))
        except json.JSONDecodeError:
            continue
    names = Counter(re.findall(r"Action:\s*(\w+)", answer)) == Counter(call["Action"] for call in calls)
    return names and found == inputs, names


FRAGMENTS = st.sampled_from(
    [
        "Action: getWeather\n",
        "Action: ",
        "Action Input: ",
        '{"city": "Oslo", "days": 3}',
        '{"city": "Oslo"',
        "}",
        "{",
        '"days": 3}',
        "</think>",
        "Action",
        " Input:",
        "\n",
        "true",
        "1e999",
        '{"a": {"b": 1}}',
    ]
)


@given(st.lists(FRAGMENTS, max_size=12).map("".join))
def test_cutting_the_text_at_its_last_brace_leaves_the_published_score_as_it_is(answer):
    details = graded(WEATHER, answer).details
    assert (details["published_exact"], details["published_action"]) == sdpo(WEATHER, answer)


@pytest.mark.parametrize(
    "answer",
    [
        'Action: getWeather\nAction Input: {"city": "Oslo", "days": 3}',
        'Thought: I ask.\nAction: getWeather\nAction Input: {"days": 3.0,\n "city": "Oslo"}\nDone.',
        '<think>\nAction: other\nAction Input: {"x": 1}\n</think>\n\nAction: getWeather\n'
        'Action Input: {"city": "Oslo", "days": 3}',
    ],
)
def test_the_order_of_keys_the_spelling_of_a_number_and_the_thought_do_not_matter(answer):
    assert graded(WEATHER, answer).verdict == "right"


def test_the_published_scorer_counts_the_actions_of_the_thought():
    answer = '<think>Action: other</think>Action: getWeather\nAction Input: {"city": "Oslo", "days": 3}'
    assert graded(WEATHER, answer).details == {
        "strict_exact": True,
        "strict_action": True,
        "published_exact": False,
        "published_action": False,
    }


def test_nested_inputs_are_read_by_strict_alone():
    answer = 'Action: setProfile\nAction Input: {"id": "u1", "data": {"picture": "a.jpg"}}'
    assert graded(PICTURE, answer).details == {
        "strict_exact": True,
        "strict_action": True,
        "published_exact": False,
        "published_action": True,
    }


def test_what_stands_inside_an_input_is_no_action_for_strict():
    wanted = gold(("note", {"text": "Action: run } Action Input: {"}))
    answer = 'Action: note\nAction Input: {"text": "Action: run } Action Input: {"}'
    assert graded(wanted, answer).verdict == "right"


def test_actions_are_a_multiset_and_inputs_are_merged_later_over_earlier():
    wanted = gold(("f", {"a": 1, "b": 1}), ("f", {"a": 2}), ("g", {}))
    right = 'Action: g\nAction: f\nAction Input: {"b": 1}\nAction: f\nAction Input: {"a": 2}'
    assert graded(wanted, right).verdict == "right"
    assert graded(wanted, right.replace("Action: g\n", "")).verdict == "wrong"
    assert not graded(wanted, right.replace("Action: g\n", "")).details["strict_action"]


@pytest.mark.parametrize("name", ["getWeather-v2", "getWeather.v2", "getWeather2"])
def test_a_name_that_only_begins_like_the_wanted_one_is_another(name):
    answer = f'Action: {name}\nAction Input: {{"city": "Oslo", "days": 3}}'
    assert graded(WEATHER, answer).verdict == "wrong"
    assert graded(gold((name, {"city": "Oslo", "days": 3})), answer).verdict == "right"


def test_a_full_stop_after_a_name_is_none_of_it():
    answer = 'Action: getWeather.\nAction Input: {"city": "Oslo", "days": 3}'
    assert graded(WEATHER, answer).verdict == "right"


def test_a_gold_may_be_the_list_itself():
    assert tooluse.gold(json.loads(WEATHER), "line 1") == WEATHER == tooluse.gold(WEATHER, "line 1")


def test_true_is_not_the_number_one():
    wanted = gold(("f", {"a": [1]}))
    details = graded(wanted, 'Action: f\nAction Input: {"a": [true]}').details
    assert (details["strict_exact"], details["published_exact"]) == (False, True)


@pytest.mark.parametrize(
    ("number", "answer", "verdict"),
    [
        ("3", "3.0", "right"),
        ("0.1", "1e-1", "right"),
        ("1.1", "1.10", "right"),
        ("3", "3.00000000000000001", "wrong"),
        ("0", "1e-400", "wrong"),
        ("9007199254740993", "9007199254740992.0", "wrong"),
        ("1.5", '"1.5"', "wrong"),
        ("1.5", "1e-99999999999999999999", "over_limit"),
    ],
)
def test_decimals_are_equal_exactly_and_not_by_rounding(number, answer, verdict):
    wanted = json.dumps([{"Action": "f", "Action_Input": f'{{"v": {number}}}'}])
    result = graded(wanted, f'Action: f\nAction Input: {{"v": {answer}}}')
    assert result.verdict == verdict


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("I cannot help.", "unparsable"),
        ("Action: getWeather\nAction Input: Oslo", "unparsable"),
        ('Action: getWeather\nAction Input: {"city": "Oslo"', "unparsable"),
        ('Action: getWeather\nAction Input: {"city": "Oslo}', "unparsable"),
        ("Action: getWeather\nAction Input: {city: Oslo}", "unparsable"),
        ('Action Input: {"city": "Oslo", "days": 3}', "unparsable"),
        ('Action: getWeather\nAction Input: {"days": 1e999}', "unparsable"),
        ('Action: getWeather\nAction Input: {"days": NaN}', "unparsable"),
        ('Action: getWeather\nAction Input: {"days": ' + "9" * 5000 + "}", "over_limit"),
        ('Action: getWeather\nAction Input: {"days": ' + "[" * 40_000 + "]" * 40_000 + "}", "over_limit"),
        ("Action: getWeather\nAction Input: " + '{"days":' * 10_000, "over_limit"),
        ("Action: getWeather\n" * 10_000, "over_limit"),
        ('Action: getWeather\nAction Input: {"city": "\\ud800"}', "wrong"),
        ('Action: getWeather\nAction Input: {"city": "\ud800"}', "wrong"),
    ],
)
def test_calls_that_do_not_read_have_their_own_verdicts(answer, verdict):
    result = graded(WEATHER, answer)
    assert result.verdict == verdict
    assert result.extracted is None or result.extracted.isascii()


def test_a_row_becomes_a_problem_with_its_prompt_verbatim():
    assert tooluse.problem({"prompt": "Use tools. ", "answer": WEATHER}, 26, "test") == (
        "tooluse-test-00026",
        "Use tools. ",
        WEATHER,
        None,
    )


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "[]",
        "{}",
        "no json",
        '[{"Action": "f"}]',
        '[{"Action": "f", "Action_Input": {}}]',
        "[" * 100_000,
        '[{"Action": "f", "Action_Input": "{} {}"}]',
        '[{"Action": "two words", "Action_Input": "{}"}]',
    ],
)
def test_a_bad_row_is_refused_with_its_place(answer):
    with pytest.raises(DataError, match="tooluse test row 3"):
        tooluse.problem({"prompt": "Use tools.", "answer": answer}, 3, "test")
