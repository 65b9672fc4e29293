r"""GSM8K: grade-school word problems whose answer is one number.

Source: openai/grade-school-math, `grade_school_math/data/{train,test}.jsonl` at commit 3101c7d (Cobbe et
al., arXiv:2110.14168). Licence: MIT.
Prompt: the question, verbatim.
Gold: the text after `####` in the published solution.
Extraction, by the first rule that finds a number: in the last balanced `\boxed{}`; directly after the last `####`; after the
last "answer is"; the last number of the text. A box with several numbers, or with an operator, is not computed: it is
extracted as written and is wrong. For an equation after `####` or "answer is", the result counts. A fraction `a/b` or
`\frac{a}{b}` is one number, and so is `1.5e3`; digits of any script are digits.
Equality: exact rational numbers. Thousands commas, currency and percent signs and a trailing `.0` are ignored.
"""

import re
from collections.abc import Mapping
from fractions import Fraction

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
from qthink_core.benchmarks.graders.text import last_boxed, plain_characters, without_thought, writable
from qthink_core.benchmarks.prompts import message
from qthink_core.errors import DataError

FIELDS: tuple[str, ...] = ("question", "answer")
NEEDED: tuple[tuple[str, ...], ...] = (("question",), ("answer",))
FILES = {
    "train": PublishedFile(
        "gsm8k/train.jsonl",
        7473,
        "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
        "fced0849c018610984e1493088b43d38ac54c27c1cf387658e947cc40c54248b",
    ),
    "test": PublishedFile(
        "gsm8k/test.jsonl",
        1319,
        "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
        "524c11ab4ee19ae27e71a10fff523a583dbba0a714e6be0ff2518668c0071daa",
    ),
}

MAX_NUMBER_CHARS = 100

# A comma is part of a number only between groups of three digits, so that "3, 4" and "1,2" are two numbers.
_DIGITS = (
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]++(?!_[0-9]))(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)(?:[eE][-+]?[0-9]+(?!\w))?"
)
_CURRENCY = "$€£¥₹"
# In "10-5" the hyphen subtracts; it is a sign only where no operand comes before it. In "_18_" the underscores are emphasis,
# in "x_1" the 1 is an index.
_NUMBER = re.compile(
    rf"(?P<sign>(?<![^\W_])(?<![)\]}}])-[{_CURRENCY}]?)?(?<![^\W_])(?<![^\W_]_)"
    rf"(?:(?P<top>{_DIGITS})(?:/[{_CURRENCY}]?(?P<bottom>{_DIGITS}))?)"
)
# "20 - 2 = 18" states 18; "18 = 20 - 2" also states 18, and does not match.
_EQUATION = re.compile(
    rf"-?[{_CURRENCY}(]*{_DIGITS}\)*(?:\s*[-+*/÷×]\s*[{_CURRENCY}(]*{_DIGITS}\)*)++\s*=\s*[{_CURRENCY}]*(?P<result>-?{_DIGITS})"
)
_EXPONENT = re.compile("[eE][-+]?([0-9]+)")
MAX_EXPONENT_DIGITS = 3
_ANSWER_IS = re.compile("answer is", re.IGNORECASE)
_SPELLING = re.compile(
    r"\\(?=[$%#])|\\[,!;: ]|\\(?:left|right|pounds|euro)(?![A-Za-z])|(?P<comma>\{,\})|(?P<equals>\\approx(?![A-Za-z])|≈)"
    r"|\\[dct]?frac\s*(?:\{(?P<top>[^{}]{1,100})\}|(?P<one>[0-9]))\s*(?:\{(?P<bottom>[^{}]{1,100})\}|(?P<other>[0-9]))"
)
_UNIT = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|boldsymbol|mbox|underline)\s*\{([^{}]*)\}(?:\^\{?[0-9]\}?)?"
    r"|(?:(?<=[a-z]{2})|(?<=[0-9] m))\^\{?[23]\}?|\^\{?\\circ\}?|\\boxed|[{}]"
)
_SIGN = re.compile(r"^\s*(?:\+\s*|(-)\s+)")
_BEFORE_AN_OPERAND = re.compile(r"[\\^_]|[-+*/<>]\s*$")
_AFTER_AN_OPERAND = re.compile(r"[\\^_]|^\s*[-+*!<>²³]")


def problem(row: Mapping[str, object], index: int, split: str, task: str = "gsm8k") -> Problem:
    """The problem of one row; an answer without `####` may be the number alone. Raises DataError where there is no gold."""
    where = f"{task} {split} row {index}"
    text_field(row, "question", where)
    if isinstance(row.get("answer"), bool) or row.get("answer") is None:
        text_field(row, "answer", where)
    solution = text_of(row["answer"], "answer", where)
    marks = solution.count("####")
    if marks > 1:
        raise RowError(
            "no gold", f"{where} has {marks} '####' in its answer, expected one before the gold: fix or drop the row"
        )
    number = gold(solution, where)
    if marks:
        require_right(grade(number, solution), number, where)
    return Problem(f"{task}-{split}-{index:05d}", message("gsm8k", row), number, solution if marks else None)


def gold(given: object, where: str) -> str:
    """The number of a gold: alone, as text or as a JSON number, or after `####` in a published solution.

    Raises DataError where it is not a number.
    """
    text = text_of(given, "gold", where).rpartition("####")[2].strip()
    if len(text) > MAX_NUMBER_CHARS or _value(text) is None:
        raise DataError(f"{where} has the gold {text!r:.60}, expected one number, alone or after '####': fix or drop it")
    return text


def gold_answer(problem: Problem) -> str:
    """The answer of a perfect system: the whole published solution, or the gold after its mark where there is none."""
    return problem.rationale or f"#### {problem.gold}"


def extract(answer: str) -> str | None:
    """The number that the answer states, as text, or None."""
    text = _spelled_plainly(plain_characters(without_thought(answer)))
    if (boxed := last_boxed(text)) is not None and (given := _from_box(boxed)) is not None:
        return given
    # "#### Step 2" is a heading: only a number directly after the mark is an answer
    _, mark, rest = text.rpartition("####")
    if mark and (number := _NUMBER.match(rest.lstrip(f" \t*+:{_CURRENCY}"))):
        return _stated(number)
    if (stated := _last(_ANSWER_IS, text)) and (number := _NUMBER.search(text, stated.end())):
        return _stated(number)
    number = _last(_NUMBER, text)
    return number[0] if number else None


def grade(gold: str, answer: str) -> Grade:
    """Right where the number extracted from the answer equals the gold exactly."""
    if len(without_thought(answer)) > MAX_ANSWER_CHARS:
        return Grade("over_limit", None, {})
    extracted = extract(answer)
    if extracted is None:
        return Grade("unparsable", None, {})
    if len(extracted) > MAX_NUMBER_CHARS:
        return Grade("over_limit", None, {})
    value = _value(extracted)
    return Grade("right" if value is not None and value == _value(gold) else "wrong", writable(extracted), {})


def _stated(number: re.Match[str]) -> str:
    """The number, or the result of the equation that starts with it."""
    equation = _EQUATION.match(number.string, number.start())
    return equation["result"] if equation else number[0]


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    last = None
    for match in pattern.finditer(text):
        last = match
    return last


def _spelled_plainly(text: str) -> str:
    r"""The text without LaTeX's spellings of a number: `1{,}000`, `1\,000`, `\$5`, `\frac{1}{2}`, `\frac12`."""
    return _SPELLING.sub(_plain, text)


def _plain(spelling: re.Match[str]) -> str:
    top, bottom = spelling["top"] or spelling["one"], spelling["bottom"] or spelling["other"]
    if top:
        # a mixed number stays two numbers: 3\frac{1}{2} is not 31/2
        space = " " if spelling.string[max(spelling.start() - 1, 0)].isdigit() else ""
        return f"{space}{top}/{bottom}"
    return "," if spelling["comma"] else "=" if spelling["equals"] else ""


def _from_box(boxed: str) -> str | None:
    """The number of a box, or the whole box where it is an expression, or None where it has no number."""
    content = _UNIT.sub(lambda unit: f" {unit[1] or ''} ", boxed.rpartition("=")[2])
    content = _SIGN.sub(r"\1", content)
    numbers = list(_NUMBER.finditer(content))
    if not numbers:
        return None
    before, after = content[: numbers[0].start()], content[numbers[0].end() :]
    if len(numbers) > 1 or _BEFORE_AN_OPERAND.search(before) or _AFTER_AN_OPERAND.search(after):
        return boxed
    return numbers[0][0]


def _value(text: str) -> Fraction | None:
    """The rational number that a text states, or None; the caller limits its length."""
    number = _NUMBER.fullmatch(text.strip().lstrip(_CURRENCY).rstrip("%"))
    if number is None or any(len(power) > MAX_EXPONENT_DIGITS for power in _EXPONENT.findall(text)):
        return None
    bottom = Fraction((number["bottom"] or "1").replace(",", ""))
    if not bottom:
        return None
    top = Fraction(number["top"].replace(",", ""))
    return (-top if number["sign"] else top) / bottom
