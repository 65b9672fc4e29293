"""GSM8K's page on the published files, and its rules on small hand-written cases."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qthink_core.benchmarks.graders import grade, gsm8k
from qthink_core.errors import DataError

DATA = Path(__file__).parents[3] / "../shared/data/gsm8k"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the published GSM8K files are not on this machine")


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def verdict(gold: str, answer: str) -> str:
    return grade("gsm8k", gold, answer).verdict


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_published_gold_matches_itself_and_its_solution(split):
    published = rows(f"{split}.jsonl")
    assert len(published) == gsm8k.FILES[split].records
    for index, row in enumerate(published):
        problem = gsm8k.problem(row, index, split)
        assert verdict(problem.gold, problem.gold) == "right", problem.id
        assert verdict(problem.gold, gsm8k.gold_answer(problem)) == "right", problem.id


@pytest.mark.slow
@needs_data
def test_we_agree_with_openai_on_every_one_of_their_5276_labels():
    labels = 0
    for row in rows("example_model_solutions.jsonl"):
        gold = row["ground_truth"].rpartition("A:")[2].strip()
        for solution in (value for value in row.values() if isinstance(value, dict)):
            assert (verdict(gold, solution["solution"]) == "right") == solution["is_correct"], solution
            labels += 1
    assert labels == 5276


@pytest.mark.slow
@needs_data
def test_a_gold_that_is_off_by_one_never_passes():
    for index, row in enumerate(rows("test.jsonl")):
        problem = gsm8k.problem(row, index, "test")
        wrong = int(problem.gold.replace(",", "")) + 1
        assert verdict(problem.gold, rf"\boxed{{{wrong}}}") == "wrong", problem.id


def test_a_row_becomes_a_problem_with_its_question_verbatim():
    row = {"question": "How many?  ", "answer": "2+3=<<2+3=5>>5\n#### 1,005"}
    row["answer"] = row["answer"].replace("5>>5", "1005>>1005")
    problem = gsm8k.problem(row, 12, "test")
    assert problem == ("gsm8k-test-00012", "How many?  ", "1,005", row["answer"])


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"question": "How many?"}, "'answer'"),
        ({"question": " ", "answer": "#### 5"}, "'question'"),
        ({"question": 5, "answer": "#### 5"}, "int 5"),
        ({"question": "How many?", "answer": "five"}, "the gold 'five'"),
        ({"question": "How many?", "answer": "#### 4 #### 5"}, "2 '####'"),
        ({"question": "How many?", "answer": "#### five"}, "'five'"),
        ({"question": "How many?", "answer": r"\boxed{4} #### 5"}, "extracted '4'"),
        ({"question": "\ud800", "answer": "#### 5"}, "lone surrogate"),
    ],
)
def test_a_bad_row_is_refused_with_its_place_and_its_fault(row, named):
    with pytest.raises(DataError, match="gsm8k train row 7") as refusal:
        gsm8k.problem(row, 7, "train")
    assert named in str(refusal.value)


@pytest.mark.parametrize(
    ("answer", "extracted"),
    [
        (r"3 then \boxed{4} #### 5. The answer is 6, not 7", "4"),
        (r"\boxed{4} or rather \boxed{5}", "5"),
        (r"\boxed{4} or rather \boxed{5", "4"),
        (r"\boxed{\boxed{4}}", "4"),
        (r"\boxed{} #### 5. The answer is 6, not 7", "5"),
        ("#### Step 2\nThe answer is 6, not 7", "6"),
        ("The ANSWER IS: **$6** and not 7", "6"),
        ("5 + 2 = 7", "7"),
        ("A: 26", "26"),
        ("<think>\n#### 5\n</think>\n\nIt is 6.", "6"),
        ("It is 6. <think> or 5", "6"),
        ("10-5", "10-5"),
        ("it falls by -5", "-5"),
        ("it falls by \u2212$5", "-5"),
        ("1, 2, 3", "3"),
        ("2,1000", "2,1000"),
        (r"\boxed{x = 18 \text{ m}^2}", "18"),
        (r"\boxed{3\frac{1}{2}}", r"3 1/2"),
        ("so _18_ eggs", "18"),
        ("so __-18__ eggs", "-18"),
        ("so x_1 eggs", None),
        ("so 5_600 eggs", "5_600"),
        ("1e3", "1e3"),
        ("3e", "3e"),
        ("１８ and ١٩", "19"),
        ("1\u200b8", "18"),
        ("5\u202f600", "5600"),
        ("it falls by \u20133", "-3"),
        ("pages 10\u201318", "10-18"),
        (r"\boxed{\frac12}", "1/2"),
        (r"\boxed{\dfrac{36}2}", "36/2"),
        (r"\boxed{+18}", "18"),
        (r"\boxed{- 18}", "-18"),
        (r"\boxed{\left(18\right)}", "18"),
        (r"\boxed{x \approx 18}", "18"),
        (r"\boxed{18 cm^2}", "18"),
        (r"\boxed{18 m^2}", "18"),
        (r"\boxed{\underline{18}}", "18"),
        (r"\boxed{₹18}", "18"),
        ("#### +18", "18"),
        ("no number at all", None),
        ("", None),
    ],
)
def test_the_first_rule_that_finds_a_number_gives_it(answer, extracted):
    assert gsm8k.extract(answer) == extracted


@pytest.mark.parametrize("box", [r"\sqrt{16}", "2^4", "16!", "16, 17", r"4 \times 4", "x/16", "160/10/1", "16²", "16x^2"])
def test_an_expression_in_a_box_is_not_computed(box):
    assert verdict("16", rf"\boxed{{{box}}}") == "wrong"


@given(st.integers(-(10**12), 10**12))
def test_formatting_does_not_change_a_number(number):
    spellings = [
        f"{number}.0",
        f"{number:,}",
        f"{number:,}.00",
        f"{number}%",
        f"${number}",
        rf"\boxed{{\${number:,}}}",
        rf"\boxed{{{number}\%}}",
        r"\boxed{" + f"{number:,}".replace(",", "{,}") + r"\text{ dollars}}",
        f"#### {number}",
        f"The answer is {number}.",
        rf"\boxed{{\frac{{{3 * number}}}{{3}}}}",
    ]
    for spelling in spellings:
        assert verdict(str(number), spelling) == "right", spelling
        assert verdict(str(number + 1), spelling) == "wrong", spelling


def test_decimals_are_compared_exactly_and_not_as_floats():
    assert 0.1 + 0.2 != 0.3
    assert float("10.00000000000000001") == 10
    assert verdict("10", "10.00000000000000001") == "wrong"
    assert verdict("0.5", ".50") == "right"
    assert verdict("0.5", "1/2") == "right"
    assert verdict("5", "5/0") == "wrong"


def test_a_power_of_ten_is_read_up_to_three_digits():
    assert verdict("5600", "5.6e3") == "right"
    assert verdict("1", "1e3") == "wrong"
    assert verdict("1" + "0" * 50, "1E50") == "right"
    assert verdict("1", "1e9999999999") == "wrong"


@pytest.mark.parametrize("given", ["7", " 7.0 ", 7, "3 + 4 = <<3+4=7>>7\n#### 7", "$7", "1,007"])
def test_a_gold_is_a_number_bare_or_at_the_end_of_a_published_solution(given):
    number = gsm8k.gold(given, "line 1")
    assert verdict(number, "It is 1007" if given == "1,007" else "It is 7") == "right"


@pytest.mark.parametrize("given", ["seven", "7 8", "#### ", "", None, True, [7], "7/0", "7" * 101, "1e9999"])
def test_what_spells_no_number_is_no_gold(given):
    with pytest.raises(DataError, match=r"^line 1 has "):
        gsm8k.gold(given, "line 1")


def test_a_number_beyond_the_limit_is_not_read():
    assert verdict("7", "7" * (gsm8k.MAX_NUMBER_CHARS + 1)) == "over_limit"
    assert verdict("7", "7" * 10**5 + " 7") == "over_limit"
