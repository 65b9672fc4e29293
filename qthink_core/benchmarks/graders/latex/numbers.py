r"""Plain numbers in a spelled expression: exact values, and what only a reader of text would take for one.

- Digits may be grouped in threes by a comma, a space or an apostrophe. Any other space between digits is unreadable.
- `2\frac{1}{2}` and `2 1/2` are mixed numbers; an improper fraction behind digits is unreadable.
- `0.\overline{3}` and `0.(3)` repeat. `0.333\ldots` is unreadable.
- `1.5e-3` is a power of ten, except where the gold has an e.
- `52_{8}` has a base. It equals the same digits with the same base, or without one; a number equals it only by that rule.
"""

import re
from fractions import Fraction

from qthink_core.benchmarks.graders.latex.spelling import UNREADABLE
from qthink_core.benchmarks.graders.numbers.vocabulary import SMALL

_GROUPED = re.compile(r"(?<![0-9.,'_ ])[0-9]{1,3}(?:(?: [0-9]{3})+|(?:'[0-9]{3})+)(?![0-9'])(?! [0-9])")
_MIXED_IN_TEXT = re.compile(r"(?<![0-9.] )(?<![0-9.])([0-9]+) ([0-9]+)/([0-9]+)(?![0-9./])")
_MIXED = re.compile(r"(?<![0-9.])([0-9]+)\\frac\{([0-9]+)\}\{([0-9]+)\}")
_AFTER_POINT = re.compile(r"[0-9]*\.[0-9]*\\frac")
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)(?:\\overline\{([0-9]+)\}|\(([0-9]+)\))(?![0-9])")
_E_NOTATION = re.compile(r"(?<=[0-9.])[eE]([-+]?[0-9]{1,3})(?![0-9.])")
_THOUSANDS = re.compile(r"(?<![0-9.,_^;(\[])(?<!\\\{)[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")
_POWER_OF_TEN = re.compile(r"10\^\{([-+]?[0-9]{1,3})\}")
_DIGITS = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+")
_FRACTION = re.compile(r"\\frac\{([-+]?[0-9]+)\}\{([-+]?[0-9]+)\}|([0-9]+)/([0-9]+)")
_SUM = re.compile(r"\(([0-9]+)\+\\frac\{([0-9]+)\}\{([0-9]+)\}\)")
_BASED = re.compile(
    r"\(?([0-9A-Z]+(?:\.[0-9A-Z]+)?)\)?_\{\(?(?:\\text\{base\}|base)?(?:([0-9]{1,2})|\\text\{([a-z]+)\})\)?\}"
)
_BASED_IN_WORDS = re.compile(r"\(?([0-9A-Z]+)\)?\(?(?:\\text\{in\})?\\text\{base\}(?:([0-9]{1,2})|\\text\{([a-z]+)\})\)?")


def with_thousands(text: str) -> str:
    """The text with digits that commas group in threes joined, but for those behind a bracket, as in a point `(1,234)`."""
    return _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text)


def exact(text: str, e_notation: bool = True) -> str:
    """The text with exact fractions and sums for repeating decimals and mixed numbers; what is ambiguous is marked."""
    text = _GROUPED.sub(lambda found: re.sub("[ ']", "", found[0]), text)
    text = _MIXED_IN_TEXT.sub(r"\1\\frac{\2}{\3}", text)
    text = _AFTER_POINT.sub(lambda found: UNREADABLE + found[0], text)
    text = _REPEATING.sub(_repeating, _MIXED.sub(_mixed, text))
    return _E_NOTATION.sub(r"\\cdot10^{\1}", text) if e_notation else text


def _mixed(found: re.Match[str]) -> str:
    whole, top, bottom = found.groups()
    return rf"({whole}+\frac{{{top}}}{{{bottom}}})" if 0 < int(top) < int(bottom) else UNREADABLE + found[0]


def _repeating(found: re.Match[str]) -> str:
    whole, fixed = found[1], found[2]
    repeating = found[3] or found[4]
    value = Fraction(int((whole or "0") + fixed or "0"), 10 ** len(fixed))
    value += Fraction(int(repeating), (10 ** len(repeating) - 1) * 10 ** len(fixed))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def rational(text: str) -> Fraction | None:
    """The rational number that an exact text plainly states, or None; the caller limits its length."""
    sign = 1
    while text[:1] in ("-", "+", "("):
        if text[0] == "(":
            if text[-1:] != ")" or "(" in text[1:] or _SUM.fullmatch(text):
                break
            text = text[1:-1]
        elif text[1:2] in ("-", "+"):
            return None
        else:
            sign, text = sign * (-1 if text[0] == "-" else 1), text[1:]
    if found := _SUM.fullmatch(text):
        return sign * (int(found[1]) + Fraction(int(found[2]), int(found[3])))
    if found := _FRACTION.fullmatch(text):
        top, bottom = int(found[1] or found[3]), int(found[2] or found[4])
        return sign * Fraction(top, bottom) if bottom else None
    value = Fraction(sign)
    for factor in text.split(r"\cdot"):
        if found := _POWER_OF_TEN.fullmatch(factor):
            value *= Fraction(10) ** int(found[1])
        elif _DIGITS.fullmatch(factor):
            value *= Fraction(factor)
        else:
            return None
    return value


def with_base(text: str) -> tuple[str, int] | None:
    """The digits and the base of a number with its base as index or in words, or None."""
    found = _BASED.fullmatch(text) or _BASED_IN_WORDS.fullmatch(text)
    base = (int(found[2]) if found[2] else SMALL.get(found[3], 0)) if found else 0
    if not found or not 2 <= base <= 36:
        return None
    return found[1], base


def value_in_base(digits: str, base: int) -> Fraction | None:
    """The value of whole digits in a base, or None where a digit is too high."""
    if "." in digits or any(int(one, 36) >= base for one in digits):
        return None
    return Fraction(int(digits, base))
