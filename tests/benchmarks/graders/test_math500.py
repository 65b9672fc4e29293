"""MATH-500's page on the published file, and its golds against themselves and what is near them, by the real Math-Verify."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qthink_core.benchmarks.graders import grade, latex_equality, math500
from qthink_core.errors import DataError

DATA = Path(__file__).parents[3] / "../shared/data/math500/test.jsonl"
needs_data = pytest.mark.skipif(not DATA.is_file(), reason="the published MATH-500 file is not on this machine")
# Parts of expressions with braces in pairs.
FRAGMENTS = [
    *(
        "2",
        "10",
        ".5",
        "x",
        "i",
        "cm",
        " cm",
        "and ",
        " ",
        ",",
        ", ",
        "+",
        "-",
        "=",
        "<",
        "(",
        "]",
        "^",
        "_",
        "!",
        "'",
        "½",
        "√",
        "²",
    ),
    *(
        r"\frac",
        r"\frac12",
        "{3}",
        r"{\over}",
        r"\sqrt",
        r"\text{ m}",
        r"\text{ in}^2",
        r"\text{not }",
        r"\pm",
        r"\pi",
        r"\infty",
    ),
    *(
        r"\le ",
        r"\cup ",
        r"\in ",
        r"\{",
        r"\\",
        r"\left",
        r"\quad",
        r"\approx ",
        r"^\circ",
        "%",
        r"\$",
        "~",
        ":",
        "…",
        "年",
        r"\foo",
    ),
]


@pytest.fixture
def worker():
    """Its processor time is counted when it ends."""
    yield
    latex_equality.close()


def rows() -> list[dict]:
    return [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]


def verdict(gold: str, expression: str) -> str:
    return grade("math500", gold, rf"So it is $\boxed{{{expression}}}$.").verdict


@needs_data
def test_every_published_gold_matches_itself_and_its_official_solution():
    published = rows()
    assert len(published) == math500.FILES["test"].records
    for index, row in enumerate(published):
        problem = math500.problem(row, index, "test")
        assert verdict(problem.gold, problem.gold) == "right", problem.id
        assert grade("math500", problem.gold, math500.gold_answer(problem)).verdict == "right", problem.id


def one_of_each_form() -> list[str]:
    """The first gold of each form: golds that differ in digits, signs and spaces alone have the same."""
    golds = sorted({row["answer"] for row in rows()})
    return list({re.sub(r"\\left|\\right|\s|-", "", re.sub("[0-9]+", "0", gold)): gold for gold in reversed(golds)}.values())


@pytest.mark.slow
@needs_data
def test_computer_algebra_takes_a_gold_for_itself_where_the_texts_differ():
    # not in a mixed number
    changed = {gold: re.sub(r"\\(sqrt|(?<![0-9 ]\\)frac)\{([0-9]+)\}", r"\\\1{\2+0}", gold) for gold in one_of_each_form()}
    differing = {gold: text for gold, text in changed.items() if text != gold}
    assert len(differing) > 10
    assert {gold: text for gold, text in differing.items() if verdict(gold, text) != "right"} == {}


def perturbed(gold: str) -> dict[str, str]:
    """What is near the gold and another value, by what was done to it."""
    first = re.sub(r"[0-9]", lambda digit: str((int(digit[0]) + 1) % 10), gold, count=1)
    last = re.sub(r"[0-9](?=[^0-9]*$)", lambda digit: str((int(digit[0]) + 1) % 10), gold)
    inverse = gold.translate(str.maketrans("()[]", "[]()"))
    return {
        name: text
        for name, text in {
            "first digit": first,
            "last digit": last,
            "negated": f"-({gold})" if gold != "0" else gold,
            "doubled": f"2({gold})" if gold != "0" else gold,
            "one more": f"{gold}+1",
            "a value more": f"{gold}, 7",
            "a value twice": f"{gold}, {gold}",
            "an untrue equation": f"123457={gold}",
            "round for square": inverse if "," in gold and gold[0] in "([" else gold,
        }.items()
        if text != gold
    }


@pytest.mark.slow
@needs_data
def test_a_perturbed_gold_never_passes(worker):
    # every third change of each form, in turn, so that each kind of change meets a third of the forms
    passed = {
        (gold, name): text
        for row, gold in enumerate(one_of_each_form())
        for name, text in list(perturbed(gold).items())[row % 3 :: 3]
        if verdict(gold, text) == "right"
    }
    assert not passed


@pytest.mark.slow
def test_a_perturbed_gold_of_every_form_never_passes():
    golds = (
        "6",
        r"\frac{3}{4}",
        r"2\sqrt{3}",
        "1,-2",
        r"(3, \frac{\pi}{2})",
        "[2,5)",
        r"1 \pm \sqrt{19}",
        "204_5",
        "8n^2+1",
    )
    passed = {
        (gold, name): text
        for row, gold in enumerate(golds)
        for name, text in list(perturbed(gold).items())[row % 2 :: 2]
        if verdict(gold, text) != "wrong"
    }
    assert not passed


@given(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=8).map("".join).filter(str.strip))
def test_every_expression_equals_itself(expression):
    assert verdict(expression, expression) == "right"


@pytest.mark.parametrize(
    ("answer", "extracted"),
    [
        (r"\boxed{3\sqrt{13}}" + " and so on" * 50, r"3\sqrt{13}"),
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{1} \boxed{2", "1"),
        (r"$\boxed 2$ is the answer", "2"),
        (r"$\boxed\frac12$", r"\frac12"),
        (r"\boxed{1}, or rather $\boxed 2$.", "2"),
        (r"$\boxed 1$, or rather \boxed{2}.", "2"),
        (r"\boxed{1} \fbox{2}", "2"),
        (r"\boxed {2}", "2"),
        (r"\\boxed{\\frac{1}{2}}", r"\frac{1}{2}"),
        (r"1 \\ \boxed{2}", "2"),
        (r"1 \\\boxed{\begin{pmatrix}1\\2\end{pmatrix}}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"\boxed{2}}", "2"),
        (r"\boxed{2", None),
        (r"\boxed", None),
        (r"\boxedtimes 2", None),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"<think>\boxed{1}</think>so \boxed{2}", "2"),
        (r"<think>\boxed{1}</think>so 2", None),
        (r"<think>\boxed{1}", None),
        (r"\boxed{ }", None),
        ("the answer is 2", None),
    ],
)
def test_the_last_balanced_box_of_the_whole_answer_is_extracted(answer, extracted):
    assert math500.extract(answer) == extracted


def test_an_answer_without_a_box_is_unparsable_and_a_long_box_is_over_the_limit():
    assert grade("math500", "2", "the answer is 2") == ("unparsable", None, {})
    assert grade("math500", "2", r"\boxed{2" + "+0" * 400 + "}") == ("over_limit", None, {})


def test_the_question_ends_in_the_advice_of_the_model_card():
    row = {"problem": "Add.", "solution": r"It is \boxed{2}.", "answer": "2", "unique_id": "test/algebra/1.json"}
    question = "Add.\nPlease reason step by step, and put your final answer within \\boxed{}."
    assert math500.problem(row, 0, "test") == ("test/algebra/1.json", question, "2", r"It is \boxed{2}.")


@pytest.mark.parametrize(
    ("change", "named"),
    [({"problem": None}, "'problem'"), ({"answer": "3"}, "does not match"), ({"solution": "2"}, "no box")],
)
def test_a_bad_row_is_refused_with_its_place_and_its_fault(change, named):
    row = {"problem": "Add.", "solution": r"It is \boxed{2}.", "answer": "2", "unique_id": "test/algebra/1.json"}
    with pytest.raises(DataError, match="math500 test row 4") as refusal:
        math500.problem(row | change, 4, "test")
    assert named in str(refusal.value)


@pytest.mark.parametrize("given", [r"\frac{1}{2}", "7", 7, 0.5])
def test_a_gold_is_what_stands_in_the_box(given):
    text = math500.gold(given, "line 1")
    assert verdict(text, str(given)) == "right"


@pytest.mark.parametrize("given", ["", r"\frac{1}{2", "2}", r"\boxed{2}", "2</think>", "2" * 501, None, True])
def test_what_no_box_could_hold_whole_is_no_gold(given):
    with pytest.raises(DataError, match=r"^line 1 has "):
        math500.gold(given, "line 1")
