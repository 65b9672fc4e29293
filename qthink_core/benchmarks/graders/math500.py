r"""MATH-500: competition problems whose answer is a LaTeX expression.

Source: openai/prm800k, `prm800k/math_splits/test.jsonl` (500 problems of Hendrycks et al., arXiv:2103.03874, chosen in
arXiv:2305.20050); training problems: `train.jsonl` in the same folder. Licence: MIT.
Prompt: the problem and, on the next line, `prompts.MATH_INSTRUCTION`.
Gold: the field `answer`.
Extraction: the content of the last balanced `\boxed{}` of the whole answer. (A window of 100 characters, as in some
graders, would miss 45 of the 500 official solutions and find 3 where `3\sqrt{13}` is written.)
Equality, by the first rule that decides:
- the same text without spacing, typeface, percent signs (many problems ask for the number alone) and variants of spelling;
- two plain rational numbers (decimals, also repeating or times a power of ten, and fractions), compared exactly;
- two whole numbers with a base as index, compared by digits and base;
- units with different powers, where both have one, are wrong;
- also wrong are an equation chain whose plain numbers differ (`1=2`), a different number of values (`2,3,3` for `2,3`), and
  a bare list or a set where a point or an interval is required;
- Math-Verify on both sides, each in its own `\boxed{}`, gold first, in a process that can be killed.
"""

from collections.abc import Mapping

from qthink_core.benchmarks.graders.contract import (
    MAX_ANSWER_CHARS,
    Grade,
    Problem,
    PublishedFile,
    RowError,
    require_right,
    text_field,
    text_of,
)
from qthink_core.benchmarks.graders.latex.equality import same
from qthink_core.benchmarks.graders.latex_equality import compare
from qthink_core.benchmarks.graders.solution_box import solution_box
from qthink_core.benchmarks.graders.text import last_boxed, without_thought, writable
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
    unique_id = f"{task}-{split}-{index:05d}" if name is None else text_field(row, "unique_id", where)
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
    r"""The content of the last balanced `\boxed{}`, or None where it is missing or empty."""
    boxed = last_boxed(without_thought(answer))
    return boxed.strip() or None if boxed is not None else None


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
