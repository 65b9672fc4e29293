r"""GSM8K: grade-school word problems whose answer is one number.

Source: openai/grade-school-math, `grade_school_math/data/{train,test}.jsonl` at commit 3101c7d (Cobbe et
al., arXiv:2110.14168). Licence: MIT.
Prompt: the question, verbatim.
Gold: the text after `####` in the published solution.
Extraction, by the first rule that finds something:
- the last balanced `\boxed{}` that is not empty (`\fbox` and `\boxed 18` too); all of it counts;
- directly after the last `####`, unless it numbers a heading;
- the first number after the last "answer is" that has one;
- the last number of the text.
A number that the text denies ("not 5", "isn't 5") is passed over. The package `numbers` reads the rest: any spelling of one
number, and the result of an equation. An expression that would have to be computed or interpreted is extracted as
written and is wrong: `√16`, `2⁴`, `18k`, `20 - 2`, `18 to 20`. Cardinals in words count in a box and after a mark.
Equality: exact rational numbers. Currency and percent signs, units and a trailing `.0` are ignored; "5 million" is
5,000,000, but "8 dozen" is 8, because GSM8K asks for dozens. The rulings are in docs/decisions/method.md.
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
from qthink_core.benchmarks.graders.numbers.spelling import flat, plain
from qthink_core.benchmarks.graders.numbers.statement import Stated, first, in_box, in_words, last, value
from qthink_core.benchmarks.graders.text import last_boxed, without_thought, writable
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

_ANSWER_IS = re.compile("answer is", re.IGNORECASE)
# "#### Step 2" and "#### 2. Subtract" are headings: only a number directly after the mark is an answer.
_AFTER_HASHES = re.compile(
    r"####[\s*_:$(\[{\"'~=+-]*+(?:(?:the )?(?:final )?answer:[\s*_$]*+)?"
    r"(?:[^\W\d_A-Za-z\u00c0-\u024f]++\s*+|[A-Za-z]\w{0,20} *= *)?[$(-]*+\.?[0-9]"
    r"(?![0-9]*[.)] +[A-Z][^\n]{0,200}\n\s*\S)",
    re.IGNORECASE,
)


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
    stated = _stated(answer)
    return stated.text if stated else None


def grade(gold: str, answer: str) -> Grade:
    """Right where the number extracted from the answer equals the gold exactly."""
    if len(without_thought(answer)) > MAX_ANSWER_CHARS:
        return Grade("over_limit", None, {})
    stated = _stated(answer)
    if stated is None:
        return Grade("unparsable", None, {})
    if len(stated.text) > MAX_NUMBER_CHARS:
        return Grade("over_limit", None, {})
    right = stated.value is not None and stated.value == _value(gold)
    return Grade("right" if right else "wrong", writable(stated.text), {})


def _stated(answer: str) -> Stated | None:
    text = plain(without_thought(answer))
    if (boxed := last_boxed(text)) is not None and (stated := in_box(boxed)):
        return stated
    text = flat(text)
    marks = list(_AFTER_HASHES.finditer(text))
    if marks and (stated := first(text, marks[-1].start() + 4, len(text))):
        return stated
    _, mark, rest = text.rpartition("####")
    if mark and (stated := in_words(rest)):
        return stated
    stop = len(text)
    for begin in reversed([mark.end() for mark in _ANSWER_IS.finditer(text)]):
        if stated := first(text, begin, stop):
            return stated
        stop = begin
    return last(text)


def _value(text: str) -> Fraction | None:
    """The rational number that a gold states, or None; the caller limits its length."""
    return value(plain(text))
