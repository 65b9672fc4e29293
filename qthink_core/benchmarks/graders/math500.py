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
from qthink_core.benchmarks.graders.latex_equality import compare
from qthink_core.benchmarks.graders.solution_box import solution_box
from qthink_core.benchmarks.graders.text import last_boxed, plain_characters, without_thought, writable
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

# Characters as LaTeX; typefaces, sizes and colours are ignored.
_SYMBOLS = str.maketrans(
    {
        "°": r"^\circ ",
        "∞": r"\infty ",
        "∪": r"\cup ",
        "π": r"\pi ",
        "×": r"\times ",
        "·": r"\cdot ",
        "²": "^2",
        "³": "^3",
        "~": " ",
    }
)
_LOOKS = re.compile(
    r"\\(?:[bB]igg?[lmr]?|bf|large|Large|displaystyle|(?:boldsymbol|bold|underline)(?=\s*\{))(?![A-Za-z])"
    r"|\\(?:text)?color\s*\{[A-Za-z]+\}"
    r"|(?P<leading>^\s*(?:\\approx(?![A-Za-z])|≈))|(?P<degree>\\degree(?![A-Za-z]))|(?P<cup>\\bigcup(?![A-Za-z]))"
    r"|√\s*(?P<root>[0-9]+|\([^()]*\))|(?P<percent>\\?%)"
)
_SPACING = re.compile(r"(\\\\)|\\(?:left|right)(?![A-Za-z])|\\[,!;: ]|\\?\$|\\$|\s")
_DIGITS = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
_RATIONAL = re.compile(
    rf"(?P<sign>[-+])?(?:(?P<number>{_DIGITS})(?:\\overline\{{(?P<repeating>[0-9]+)\}})?"
    r"(?:(?:\\times|\\cdot)10\^(?:\{(?P<power>-?[0-9]{1,3})\}|(?P<digit>[0-9])))?"
    r"|\\frac(?:\{(?P<top>-?[0-9]+)\}|(?P<one>[0-9]))(?:\{(?P<bottom>[0-9]+)\}|(?P<other>[0-9]))"
    r"|(?P<over>[0-9]+)/(?P<under>[0-9]+))"
)
_UNIT_POWER = re.compile(r"\\(?:text|mbox|mathrm)\{[^{}]*\}\^\{?(?P<power>[0-9])\}?$")
_WITH_BASE = re.compile(r"([0-9A-Z]+)_\{?([0-9]+)\}?")
_AND = re.compile(r",?(?:\\(?:text|mbox|mathrm)\{,?(?:and|or),?\}|(?<=[0-9})])(?:and|or)(?=[-0-9\\(])),?")
_WRAPPED = re.compile(r"\\(?:text|mbox|mathrm)\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<![0-9._^])([0-9]{1,3})((?:,[0-9]{3})+)(?![0-9])")
_BRACKET_OR_COMMA = re.compile(r"\\[{}]|[()\[\]{},]")
_OPENING = ("(", "[", "{", r"\{")
_TWO_DIGITS = re.compile(r"\\([dtc]?)frac\s*([0-9])\s*([0-9])")
_RELATION = re.compile(r"[<>]|\\(?:leq?|geq?|neq?|[lg]eqslant)(?![A-Za-z])")
_NAMED = re.compile(r"=|\\in(?![A-Za-z])")
_ORDERED = ("()", "[]", "(]", "[)")


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
    shown = writable(extracted)
    wanted, given = _spelled(gold), _spelled(extracted)
    equal = _plainly_equal(_normal(wanted), _normal(given))
    if equal is None:
        verdict = compare(wanted, given)
        if verdict == "right" and (number := _left_number(_normal(wanted), _normal(given))):
            # `1=\sqrt{2}` makes two statements, but Math-Verify reads only the last one
            verdict = compare(wanted, number)
        return Grade(verdict, shown, {})
    return Grade("right" if equal else "wrong", shown, {})


def _spelled(latex: str) -> str:
    """The expression in LaTeX's characters, without typeface, percent signs and a leading "approximately"."""
    looks = _LOOKS.sub(_look, plain_characters(latex).translate(_SYMBOLS))
    # LaTeX reads \frac 304 as 3/0 times 4, but Math-Verify as 3/4
    return _TWO_DIGITS.sub(r"\\\1frac{\2}{\3}", looks)


def _look(found: re.Match[str]) -> str:
    if found["root"]:
        return rf"\sqrt{{{found['root'].strip('()')}}}"
    return r"^\circ" if found["degree"] else r"\cup" if found["cup"] else ""


def _normal(latex: str) -> str:
    """The expression without spacing, dollar signs and full stop, with fractions and commas written one way."""
    text = (
        _SPACING.sub(r"\1", latex)
        .replace(r"\dfrac", r"\frac")
        .replace(r"\tfrac", r"\frac")
        .replace(r"\cfrac", r"\frac")
        .replace("{,}", ",")
    )
    return text.removesuffix(".")


def _plainly_equal(gold: str, answer: str) -> bool | None:
    """Whether two normal expressions are equal, or None where text and plain numbers cannot decide."""
    if gold == answer:
        return True
    gold_value, answer_value = _rational(gold), _rational(answer)
    if gold_value is not None and answer_value is not None:
        # Math-Verify rounds decimals to six places: .0000672 would equal .0000673, and 1/3 0.333333.
        return gold_value == answer_value
    gold_based, answer_based = _WITH_BASE.fullmatch(gold), _WITH_BASE.fullmatch(answer)
    if gold_based and answer_based:
        # Math-Verify drops the index: 52_8 would equal 52_9.
        return gold_based.groups() == answer_based.groups()
    gold_unit, answer_unit = _UNIT_POWER.search(gold), _UNIT_POWER.search(answer)
    if gold_unit and answer_unit and gold_unit["power"] != answer_unit["power"]:
        # Math-Verify drops units: 15 cm^2 would equal 15 cm^3.
        return False
    if _contradicts_itself(answer) or _another_shape(gold, answer):
        return False
    return None


def _contradicts_itself(answer: str) -> bool:
    """Whether a chain of equations equates two different plain numbers; Math-Verify reads only its end."""
    listed = _AND.sub(",", answer).split(",") if min(_values(answer)[1]) > 1 else [answer]
    return any(len({_rational(side) for side in _number_sides(one)}) > 1 for one in listed)


def _number_sides(equation: str) -> list[str]:
    """The sides of an equation that are plain numbers."""
    return [side for side in equation.split("=") if _rational(side) is not None] if "=" in equation else []


def _value_with_base(text: str) -> Fraction | None:
    """The value of digits with a base as index, or None."""
    found = _WITH_BASE.fullmatch(text)
    if not found or not 2 <= int(found[2]) <= 36 or any(int(digit, 36) >= int(found[2]) for digit in found[1]):
        return None
    return Fraction(int(found[1], int(found[2])))


def _left_number(gold: str, answer: str) -> str | None:
    """The plain number with which an equation of one value starts; None if there is none or the gold allows it."""
    left, equals, _ = answer.partition("=")
    if "=" in gold or _value_with_base(gold) == _rational(left):
        return None
    return left if equals and max(_values(answer)[1]) == 1 and _rational(left) is not None else None


def _another_shape(gold: str, answer: str) -> bool:
    """Whether the answer has a different number of values than the gold, or lacks its round or square brackets.

    Math-Verify treats a list as a set, so that `2,3,3` would equal `2,3`, and `5,5` would equal `5`. It treats a bare list
    or a set as a point.
    """
    if _has_two_signs(gold) != _has_two_signs(answer) or _RELATION.search(gold + answer):
        return False
    (gold_brackets, gold_counts), (brackets, counts) = _values(gold), _values(answer)
    if not gold_counts & counts:
        return True
    several_equations = answer.count("=") > 1
    return gold_brackets in _ORDERED and max(gold_counts) > 1 and not several_equations and brackets != gold_brackets


def _has_two_signs(latex: str) -> bool:
    return r"\pm" in latex or r"\mp" in latex


def _values(latex: str) -> tuple[str, set[int]]:
    """The brackets around the expression, or "", and the possible numbers of values.

    There may be several, because commas also separate thousands and words. The text before a single `=` or `\\in` is a name.
    """
    unnamed = latex if len(_NAMED.findall(latex)) > 1 else _NAMED.split(latex)[-1]
    listed = _AND.sub(",", unnamed).replace(";", ",").replace(r"\langle", "(").replace(r"\rangle", ")")
    readings = [_WRAPPED.sub(words, listed) for words in (r"\1", "")]
    brackets, counts = "", set()
    for text in readings + [_THOUSANDS.sub(lambda found: found[0].replace(",", ""), one) for one in readings]:
        depth, opening, brackets, commas = 0, "", "", [0, 0]
        for sign in _BRACKET_OR_COMMA.finditer(text):
            if sign[0] == ",":
                if depth < 2:
                    commas[depth] += 1
            elif sign[0] in _OPENING:
                opening = sign[0] if sign.start() == 0 else opening
                depth += 1
            else:
                depth = max(depth - 1, 0)
                if depth == 0:
                    brackets = opening + sign[0] if opening and sign.end() == len(text) else ""
                    opening = ""
        counts.add(1 + commas[1 if brackets else 0])
    return brackets, counts


def _rational(text: str) -> Fraction | None:
    """The rational number that a normal expression plainly states, or None; the caller limits its length."""
    found = _RATIONAL.fullmatch(text)
    if found is None:
        return None
    if top := found["top"] or found["one"] or found["over"]:
        bottom = int(found["bottom"] or found["other"] or found["under"])
        if not bottom:
            return None
        value = Fraction(int(top), bottom)
    else:
        number = found["number"].replace(",", "")
        value = Fraction(number)
        if repeating := found["repeating"]:
            if "." not in number:
                return None
            value += Fraction(int(repeating), (10 ** len(repeating) - 1) * 10 ** len(number.partition(".")[2]))
        value *= Fraction(10) ** int(found["power"] or found["digit"] or 0)
    return -value if found["sign"] == "-" else value
