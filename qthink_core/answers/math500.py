r"""MATH-500: competition problems whose answer is a LaTeX expression.

Source: openai/prm800k, `prm800k/math_splits/test.jsonl` (500 problems of Hendrycks et al.,
arXiv:2103.03874, chosen in arXiv:2305.20050). Licence: MIT.
Prompt: the problem and, on the next line, `INSTRUCTION`.
Gold: the field `answer`.
Extraction: the content of the last balanced `\boxed{}` of the whole answer. (A window of 100 characters,
as some graders use, loses 45 of the 500 official solutions and finds 3 where `3\sqrt{13}` stands.)
Equality, the first that decides: the same text once spacing and spelling variants are gone; both plain
decimal numbers, compared exactly; both whole numbers with a base as index, compared by digits and base;
Math-Verify on both sides, each in a `\boxed{}` of its own, gold first, in a process that can be killed.
"""

import re
from collections.abc import Mapping
from fractions import Fraction

from qthink_core.answers.contract import (
    MAX_ANSWER_CHARS,
    Grade,
    Problem,
    PublishedFile,
    require_right,
    text_field,
)
from qthink_core.answers.latex_equality import compare
from qthink_core.answers.text import last_boxed, without_thought, writable

FILES = {
    "test": PublishedFile("math500/test.jsonl", 500, "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132"),
}

# The Qwen/Qwen3-1.7B model card's own advice for mathematics ("Best Practices", "Standardize Output Format").
INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."

# The longest of the 500 golds has 53 characters.
MAX_EXPRESSION_CHARS = 500

_SPACING = re.compile(r"(\\\\)|\\(?:left|right|displaystyle)(?![A-Za-z])|\\[,!;: ]|\\?\$|\s")
_DECIMAL = re.compile(r"[-+]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)")
_WITH_BASE = re.compile(r"([0-9A-Z]+)_\{?([0-9]+)\}?")


def problem(row: Mapping[str, object], index: int, split: str) -> Problem:
    """The problem of one published row. Raises DataError where a text is missing or the solution is wrong."""
    where = f"math500 {split} row {index}"
    question, solution = text_field(row, "problem", where), text_field(row, "solution", where)
    gold, unique_id = text_field(row, "answer", where), text_field(row, "unique_id", where)
    require_right(grade(gold, solution), gold, where)
    return Problem(unique_id, f"{question}\n{INSTRUCTION}", gold, solution)


def gold_answer(problem: Problem) -> str:
    """What a perfect system would write: the published solution, whole."""
    assert problem.rationale is not None
    return problem.rationale


def extract(answer: str) -> str | None:
    r"""The content of the last balanced `\boxed{}`, or None where there is none or it is empty."""
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
    shown = writable(extracted)
    equal = _plainly_equal(_normal(gold), _normal(extracted))
    if equal is None:
        return Grade(compare(gold, extracted), shown, {})
    return Grade("right" if equal else "wrong", shown, {})


def _normal(latex: str) -> str:
    """The expression without spacing, dollar signs and full stop, fractions and commas spelled one way."""
    text = _SPACING.sub(r"\1", latex).replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac").replace("{,}", ",")
    return text.removesuffix(".")


def _plainly_equal(gold: str, answer: str) -> bool | None:
    """Whether two normal expressions are equal, or None where text and plain numbers cannot tell."""
    if gold == answer:
        return True
    if _DECIMAL.fullmatch(gold) and _DECIMAL.fullmatch(answer):
        # Math-Verify rounds decimals to six places: .0000672 would equal .0000673.
        return Fraction(gold.replace(",", "")) == Fraction(answer.replace(",", ""))
    gold_based, answer_based = _WITH_BASE.fullmatch(gold), _WITH_BASE.fullmatch(answer)
    if gold_based and answer_based:
        # Math-Verify drops the index: 52_8 would equal 52_9.
        return gold_based.groups() == answer_based.groups()
    return None
