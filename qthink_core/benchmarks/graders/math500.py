r"""MATH-500: competition problems whose answer is a LaTeX expression.

Source: openai/prm800k, `prm800k/math_splits/test.jsonl` (500 problems of Hendrycks et al., arXiv:2103.03874, chosen in
arXiv:2305.20050); training problems: `train.jsonl` in the same folder. Licence: MIT.
Prompt: the problem and, on the next line, `prompts.MATH_INSTRUCTION`.
Gold: the field `answer`.
Extraction: the content of the last balanced `\boxed{}` or `\fbox{}` of the whole answer. (A window of 100 characters, as in
some graders, would miss 45 of the 500 official solutions and find 3 where `3\sqrt{13}` is written.)
Equality, by the first rule that decides:
- the same text in one spelling (`latex.spelling`: Unicode, typefaces, spacing, arguments), without phrases around it;
- where the gold is words, the same letters, in upper or lower case (`latex.words`);
- as many values as the gold, in the same brackets where they have an order (`latex.values`); the sides of an equation are
  all right, but for a name such as `x=`;
- units (`latex.words`): ignored where only one side has one, otherwise the same;
- numbers (`latex.numbers`): exactly the same rational number, or the same digits with the same base;
- Math-Verify, gold first, in a process that can be killed: rational numbers exactly, others to 50 digits.

Rulings, each on the side that never takes another value for right:
- a rounded number is wrong, however many digits it has; `0.333\ldots` is not read, `0.(3)` repeats;
- `2^10`, `\sqrt16` and `\frac123` are printed as other numbers than they mean, and are right only as the same text;
- digits with a space between them are one number only in groups of three; a comma is never a decimal point, and separates
  values directly behind a bracket, as in `(1,234)`;
- any unit is right where the gold has none, as the problem asks for it; percent and currency signs likewise, so that `50\%`
  is right for 50 and wrong for 0.5;
- a word that may change a number ("thirds", "more", "to", "not") makes it wrong; "million" and "dozen" multiply it;
- an ordinal is its number (`5\text{th}`); "minus" and "negative" in front are a sign; one bare letter is a variable (`5m`);
- letters of another case are other variables, but words may be in any case;
- an equation of one variable that is not solved, as `2x=10`, states no value; `a+b=12` states 12;
- two values in round brackets are a point or an interval, and no answer to a list of two;
- a number in the gold's base equals its digits alone; its decimal value alone is wrong;
- several values in several boxes: the last box counts.
"""

from collections.abc import Mapping

from qthink_core.benchmarks.graders.contract import (
    MAX_ANSWER_CHARS,
    Grade,
    Problem,
    PublishedFile,
    RowError,
    id_field,
    require_right,
    text_field,
    text_of,
)
from qthink_core.benchmarks.graders.latex.equality import same
from qthink_core.benchmarks.graders.latex_equality import compare
from qthink_core.benchmarks.graders.text import last_box_of_latex, solution_box, without_thought, writable
from qthink_core.benchmarks.prompts import message
from qthink_core.errors import DataError

FIELDS: tuple[str, ...] = ("problem", "solution", "answer", "unique_id")
NEEDED: tuple[tuple[str, ...], ...] = (("problem",), ("answer", "solution"))
FILES = {
    "test": PublishedFile(
        "math500/test.jsonl",
        500,
        "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
        "d5cf6c50319db798ab3679329c61e17472b67004095183c70a29f913e025d142",
    ),
}

# The longest of the 500 golds has 53 characters.
MAX_EXPRESSION_CHARS = 500


def problem(row: Mapping[str, object], index: int, split: str, task: str = "math500") -> Problem:
    """The problem of one row of MATH-500 or MATH; one without `answer` has the last box of its solution as its gold.

    Raises DataError where a text is missing, the solution has no box, or its last box is not the answer.
    """
    where = f"{task} {split} row {index}"
    text_field(row, "problem", where)
    given = row.get("answer")
    solution = None if given is not None and row.get("solution") is None else text_field(row, "solution", where)
    box = None if solution is None else solution_box(solution)
    if solution is not None and box is None:
        raise RowError("no box", f"{where} has no box with the answer in its solution: fix or drop the row")
    answer = gold(given if given is not None else box, where)
    if box is not None:
        require_right(grade(answer, rf"\boxed{{{box}}}"), answer, where)
    name = row.get("unique_id")
    unique_id = f"{task}-{split}-{index:05d}" if name is None else id_field(row, "unique_id", where)
    return Problem(unique_id, message("math500", row), answer, solution)


def gold(given: object, where: str) -> str:
    """The LaTeX expression of a gold, as in the published field; a JSON number is accepted too.

    Raises DataError where it is empty or too long, or would not be extracted whole from a box around it.
    """
    text = text_of(given, "gold", where)
    if len(text) > MAX_EXPRESSION_CHARS or extract(rf"\boxed{{{text}}}") != text.strip() or r"\boxed" in text:
        raise DataError(
            f"{where} has the gold {text!r:.60}, expected the content of a \\boxed{{}}, braces balanced, "
            f"at most {MAX_EXPRESSION_CHARS} characters: fix or drop it"
        )
    return text


def gold_answer(problem: Problem) -> str:
    """The answer of a perfect system: the whole published solution, or the gold in a box where there is none."""
    return problem.rationale or rf"\boxed{{{problem.gold}}}"


def extract(answer: str) -> str | None:
    r"""The content of the last balanced `\boxed{}` or `\fbox{}`, or None where it is missing or empty.

    A box without braces, as in `$\boxed 2$`, ends at the next `$` or line.
    """
    return last_box_of_latex(without_thought(answer))


def grade(gold: str, answer: str) -> Grade:
    """Right where the extracted expression equals the gold."""
    if len(without_thought(answer)) > MAX_ANSWER_CHARS:
        return Grade("over_limit", None, {})
    extracted = extract(answer)
    if extracted is None:
        return Grade("unparsable", None, {})
    if len(extracted) > MAX_EXPRESSION_CHARS:
        return Grade("over_limit", None, {})
    equal = same(gold, extracted)
    verdict = ("right" if equal else "wrong") if isinstance(equal, bool) else compare(equal)
    return Grade(verdict, writable(extracted), {})
