"""MATH-500's page on the published file, and its equality on small hand-written pairs, all by the real Math-Verify."""

import json
import re
from pathlib import Path

import pytest

from qthink_core.benchmarks.graders import grade, math500
from qthink_core.errors import DataError

DATA = Path(__file__).parents[3] / "../shared/data/math500/test.jsonl"
needs_data = pytest.mark.skipif(not DATA.is_file(), reason="the published MATH-500 file is not on this machine")


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


@pytest.mark.slow
@needs_data
def test_math_verify_takes_a_gold_for_itself_where_the_texts_differ():
    golds = sorted({row["answer"] for row in rows()})
    # A doubled pair of braces leaves the meaning and defeats the comparison of texts.
    doubled = {gold: re.sub(r"\\(frac|sqrt)\{([0-9]+)\}", r"\\\1{{\2}}", gold) for gold in golds}
    differing = {gold: text for gold, text in doubled.items() if text != gold}
    assert len(differing) > 50
    for gold, text in differing.items():
        assert verdict(gold, text) == "right", gold


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
def test_a_perturbed_gold_never_passes():
    golds = sorted({row["answer"] for row in rows()})
    whole = [gold for gold in golds if gold.isdigit()]
    # every second change of each gold, in turn, so that each kind of change meets half of the golds
    passed = {
        (gold, name): text
        for row, gold in enumerate(whole[::8] + [gold for gold in golds if not gold.isdigit()])
        for name, text in list(perturbed(gold).items())[row % 2 :: 2]
        if verdict(gold, text) == "right"
    }
    assert not passed


@pytest.mark.slow
def test_a_perturbed_gold_of_every_form_never_passes():
    for gold in (
        "6",
        r"\frac{3}{4}",
        r"2\sqrt{3}",
        "1,-2",
        r"(3, \frac{\pi}{2})",
        "[2,5)",
        r"1 \pm \sqrt{19}",
        "204_5",
        "8n^2+1",
    ):
        for name, text in perturbed(gold).items():
            assert verdict(gold, text) == "wrong", (gold, name)


@pytest.mark.parametrize(
    ("gold", "expression"),
    [
        (r"3\sqrt{13}", r"\sqrt{117}"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)"),
        (r"\frac{14}{3}", r"\dfrac{14}{3}"),
        (r"\frac43", r"\frac{4}{3}"),
        (r"\frac{1}{2}", "0.5"),
        (r"10,\!080", "10080"),
        (r"\$32,\!348", "32348"),
        ("58,500", "58{,}500"),
        (".35625", "0.356250"),
        (r"90^\circ", "90"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"\text{(C)}", "C"),
        ("x=5", "5"),
        ("1,-2", "-2, 1"),
        ("2,3", r"2 \text{ and } 3"),
        ("2,3", r"x=2 \text{ or } x=3"),
        ("2,3", r"\{2,3\}"),
        ("2,3", "2; 3"),
        ("3,5,7", r"3, 5, \text{ and } 7"),
        ("5", r"x = \frac{10}{2} = 5"),
        ("12", "a+b=12"),
        ("1011_2", "11=1011_2"),
        ("2,3", r"x \in \{2,3\}"),
        ("2,3", "2 and 3"),
        ("(1,2)", "(x,y)=(1,2)"),
        ("[1,2]", r"x \in [1,2]"),
        (r"x \in [1,2]", "[1,2]"),
        (r"x \ge 3", r"[3,\infty)"),
        ("5", r"5 \text{ cm, approximately}"),
        ("(1,2)", "x=1, y=2"),
        ("2,300", "2300"),
        (r"10,000 \text{ dollars}", "10000"),
        ("2", r"\sqrt{4}"),
        (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"),
        ("52_8", "52_{8}"),
        (r"137 \frac{1}{2}", r"\frac{275}{2}"),
        (r"5.4 \text{ cents}", "5.4"),
        ("6 - 5i", "-5i + 6"),
        (r"\frac{1}{3}", r"0.\overline{3}"),
        (r"\frac{7}{6}", r"1.1\overline{6}"),
        (".0000672", r"6.72 \times 10^{-5}"),
        ("10", r"10\%"),
        ("10", "10%"),
        (r"33\frac{1}{3}", r"33\frac{1}{3}\%"),
        (r"90^\circ", "90°"),
        (r"3\sqrt{13}", "3√13"),
        (r"(2, \infty)", "(2,∞)"),
        ("-5", "–5"),
        ("10", "１０"),
        ("10", r"\textcolor{red}{10}"),
        ("10", r"\boldsymbol{10}"),
        ("10", r"\approx 10"),
        ("10", "~10\u200b"),
        (r"(3, \frac{\pi}{2})", r"\bigl(3, \tfrac{\pi}{2}\bigr)"),
        (r"\frac{1}{2}", r"\frac{1}{2}\ "),
        ("(a+5)(b+2)", "ab+2a+5b+10"),
        (r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}", r"\begin{pmatrix} -\frac{1}{3} \\ \frac{2}{3} \end{pmatrix}"),
    ],
)
def test_another_spelling_of_the_gold_is_right(gold, expression):
    assert verdict(gold, expression) == "right"


@pytest.mark.parametrize(
    ("gold", "expression"),
    [
        (r"3\sqrt{13}", "3"),
        ("2", "1, 2"),
        ("2", "2 or 3"),
        ("1,-2", "-2"),
        ("p - q", "q - p"),
        ("52_8", "52_9"),
        ("52_8", "52_{81}"),
        (".0000672", ".0000673"),
        ("(3,4]", "[3,4]"),
        (r"(-\infty, 2) \cup (3, \infty)", r"(-\infty, 2) \cap (3, \infty)"),
        (r"\text{even}", r"\text{odd}"),
        (r"\frac{1}{3}", "0.333"),
        (r"\frac{1}{3}", "0.3333333333333333"),
        (r"\frac{1}{2}", "0.5000001"),
        (".0000672", r"6.73 \times 10^{-5}"),
        (".0000672", r"\frac{673}{10000000}"),
        (r"\frac{1}{3}", r"3\overline{3}"),
        (r"\frac{1}{2}", r"\frac{1}{0}"),
        (r"\frac{1}{2}", r"50\%"),
        ("10", "10.00000000000000000001"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
        ("2,3", "2,3,3"),
        (r"\{2,3\}", r"\{2,3,3\}"),
        ("(1,2),(3,4)", "(1,2),(3,4),(3,4)"),
        ("5", "5,5"),
        ("204_5", "204_5, 204_5"),
        ("2", "1=2"),
        ("5", "x=3=5"),
        (r"\sqrt{2}", r"1=\sqrt{2}"),
        ("(1,2)", "1,2"),
        ("1011_2", "12=1011_2"),
        ("(1,2)", r"\{1,2\}"),
        (r"(2,\infty)", r"(2,\infty]"),
        (r"\frac{\pi}{2}", "1.570796"),
        (r"\frac{\pi}{2}, 1", "1.570796, 1"),
        (r"\frac 34", r"\frac 304"),
    ],
)
def test_another_value_than_the_gold_is_wrong(gold, expression):
    assert verdict(gold, expression) == "wrong"


@pytest.mark.parametrize(
    ("answer", "extracted"),
    [
        (r"\boxed{3\sqrt{13}}" + " and so on" * 50, r"3\sqrt{13}"),
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{1} \boxed{2", "1"),
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
