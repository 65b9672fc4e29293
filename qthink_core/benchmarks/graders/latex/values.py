r"""The values that a spelled expression states: one, a list, a set, a point, an interval, or a relation.

- Commas, semicolons, "and" and "or" separate values; `a \pm b` is two values.
- Round and square brackets around several values have an order and count; braces and no brackets have none.
- An equation states its sides. The first or the last may be a name: a letter with an index, a function of something, or an
  expression of several variables, as in `a+b=12`. All other sides are values, and each has to be right.
- `\approx` in front means nothing; behind an exact value, what follows it is a comment.
"""

import re
from typing import NamedTuple

from qthink_core.benchmarks.graders.latex.numbers import with_thousands

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPEN = {"(": ")", "[": "]", r"\{": r"\}"}
_CLOSE = (")", "]", r"\}")
_AND = re.compile(r"[,;]?\\text\{(?:and|or)\}[,;]?")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")
_SETS = re.compile(r"\\(?:cup|cap|setminus|mathbb|emptyset)(?![A-Za-z])")
# An interval, and no point.
_INTERVAL = re.compile(r"[(\[].*\\infty.*[)\]]|\[.*[,;].*[)\]]|[(\[].*[,;].*\]")
_SIGN = re.compile(r"(<|>|\\(?:le|ge|ne)(?![A-Za-z])|=)")
_MEMBER = re.compile(r"^[A-Za-z](?:_\{[A-Za-z0-9]+\})?\\in(?![A-Za-z])(?=[\\(\[])")
_OR_BETWEEN = re.compile(r"(?<=[)\]])\\text\{or\}(?=[(\[])")
_TWO_SIGNS = re.compile(r"\\(pm|mp)(?![A-Za-z])")
_LETTERS = "alpha beta gamma delta epsilon theta lambda mu phi sigma omega rho tau ell"
_GREEK = {f"\\{letter}" for letter in _LETTERS.split()}
_INDEX = r"(?:_\{(?:[A-Za-z0-9]+|\\(?:min|max)|\\text\{[a-z]+\})\})?'*"
_SYMBOL = rf"(?:[A-Za-z]|\\(?:{'|'.join(_LETTERS.split())})(?![A-Za-z]) ?){_INDEX}"
_NAME = re.compile(
    rf"{_SYMBOL}(?:(?:\^\{{-1\}})?\([^()=]*\))?|(?:\\(?:sin|cos|tan|cot|sec|csc|det|angle)(?![A-Za-z]))(?:\^\{{[0-9]+\}})?[^=]*"
    r"|(?=\\text\{)(?:(?!\\text\{(?:not?|isn|aren|never|non|neither|minus|negative)\})"
    r"(?:\\text\{[^{}]*\}|\\triangle ?|\([A-Za-z]\)|[A-Za-z](?![a-z{}])))+"
)
_LETTER = re.compile(r"\\[A-Za-z]+|([A-Za-df-hj-z](?:_\{[A-Za-z0-9]+\})?)")


class Values(NamedTuple):
    """The brackets around the values ("", "()", "[)" ...), and each value as the sides of its equation."""

    brackets: str
    sides: list[list[str]]


def is_relation(text: str) -> bool:
    """Whether a text compares its sides with anything but `=`."""
    return _RELATION.search(text) is not None


def is_set_expression(text: str) -> bool:
    """Whether a text joins sets or intervals."""
    return _SETS.search(text) is not None


def is_interval(text: str) -> bool:
    """Whether a text is an interval that cannot be read as a point."""
    return _INTERVAL.fullmatch(text) is not None


def count(text: str) -> int:
    """How many parts commas separate outside all brackets."""
    return len(_split(text, ",;"))


def without_member(text: str) -> str:
    r"""The set in `x \in ...`, without the name of its member."""
    return _MEMBER.sub("", text)


def as_union(text: str) -> str:
    r"""The union of the intervals that "or" joins."""
    return _OR_BETWEEN.sub(r"\\cup", text)


def read(text: str) -> Values:
    """The values of one spelled expression."""
    text = without_member(_AND.sub(";", text))
    parts = _split(text, ",;")
    if len(parts) == 1:
        left, *more = _split(text, "=")
        body = more[-1] if len(more) == 1 and is_name(left) else text
        closing = next((sign for sign in _CLOSE if body.endswith(sign)), "")
        opening = next((sign for sign in _OPEN if body.startswith(sign)), "")
        if opening and closing and _encloses(body):
            inner = _split(body[len(opening) : -len(closing)], ",;", grouped=";" in body)
            if len(inner) > 1 or opening == r"\{":
                return Values(opening[-1] + closing[-1], _all_sides(inner))
    return Values("", _all_sides(parts))


def without_brackets(text: str) -> str:
    """One value without the round brackets around all of it."""
    while text[:1] == "(" and text[-1:] == ")" and _encloses(text) and not re.search("[,;]", text):
        text = text[1:-1]
    return text


def _encloses(text: str) -> bool:
    """Whether the first bracket closes with the last one."""
    depth = 0
    tokens = _TOKEN.findall(text)
    for place, token in enumerate(tokens):
        depth += token in _OPEN
        depth -= token in _CLOSE
        if depth == 0:
            return place == len(tokens) - 1
    return False


def _split(text: str, separators: str, grouped: bool = True) -> list[str]:
    """The parts between separators outside all brackets and arguments; if `grouped`, commas group the digits of a number."""
    parts, depth = [""], 0
    for token in _TOKEN.findall(with_thousands(text) if grouped and not text.startswith(tuple(_OPEN)) else text):
        depth += token in _OPEN or token == "{"
        depth -= token in _CLOSE or token == "}"
        if depth <= 0 and token in separators:
            parts.append("")
        else:
            parts[-1] += token
    return parts


def _all_sides(parts: list[str]) -> list[list[str]]:
    """The sides of each value, `\\pm` written out."""
    written_out = [one for part in parts for one in _both_signs(part)]
    return [_sides(one) for one in written_out]


def _both_signs(part: str) -> list[str]:
    if not _TWO_SIGNS.search(part):
        return [part]
    upper, lower = ("+", "-"), ("-", "+")
    return [_TWO_SIGNS.sub(lambda found, pm=pm, mp=mp: pm if found[1] == "pm" else mp, part) for pm, mp in (upper, lower)]  # type: ignore[misc]


def _sides(part: str) -> list[str]:
    exact, *approximate = re.split(r"\\approx(?![A-Za-z])", part)
    if approximate and (not exact or is_name(exact)):
        return [approximate[0]] if len(approximate) == 1 else [part]
    return _split(exact, "=")


def is_name(side: str, several_variables: bool = True) -> bool:
    """Whether a side of an equation only names the value on the other side."""
    letters = {found[0] for found in _LETTER.finditer(side) if found[1] or found[0] in _GREEK}
    if _NAME.fullmatch(side):
        return bool(letters) or side[0] != "\\" or side.startswith(r"\text")
    return several_variables and len(letters) > 1 and r"\text" not in side


def relation(text: str) -> str:
    """A chain of comparisons, or several joined by "or", as sorted pairs, the smaller side first."""
    parts = re.split(r"[,;]?\\text\{or\}[,;]?", text)
    return " or ".join(sorted("; ".join(sorted(" ".join(pair) for pair in _pairs(part))) for part in parts))


def _pairs(text: str) -> list[tuple[str, str, str]]:
    """Each comparison of a chain as (smaller side, sign, greater side)."""
    pairs = []
    for part in _split(_AND.sub(";", text), ",;"):
        tokens = [one.strip() for one in _SIGN.split(part)]
        for left, sign, right in zip(tokens[::2], tokens[1::2], tokens[2::2], strict=False):
            turned = sign in (">", r"\ge") or (sign in ("=", r"\ne") and left > right)
            sign = {">": "<", r"\ge": r"\le"}.get(sign, sign)
            pairs.append((right, sign, left) if turned else (left, sign, right))
    return pairs


def as_intervals(text: str) -> str | None:
    r"""The union of intervals to which a relation of one letter limits it, in the order written; None where it is another.

    `x<2 \text{ or } x>3` is `(-\infty,2)\cup(3,\infty)`, and `x\ne3` is `(-\infty,3)\cup(3,\infty)`.
    """
    intervals = []
    for part in re.split(r"[,;]?\\text\{or\}[,;]?", text):
        lower, upper, letters, pairs = r"(-\infty", r"\infty)", set(), _pairs(part)
        for left, sign, right in pairs:
            if len(right) == 1 and right.isalpha() and sign in ("<", r"\le"):
                lower = ("(" if sign == "<" else "[") + left
            elif len(left) == 1 and left.isalpha() and sign in ("<", r"\le"):
                upper = right + (")" if sign == "<" else "]")
            elif sign == r"\ne" and len(pairs) == 1 and len(right) == 1 and right.isalpha():
                intervals.append(rf"(-\infty,{left})\cup")
                lower = f"({left}"
            else:
                return None
            letters.add(right if len(right) == 1 and right.isalpha() else left)
        if len(letters) != 1 or len(pairs) > 2:
            return None
        intervals.append(f"{lower},{upper}")
    return r"\cup".join(intervals).replace(r"\cup\cup", r"\cup")
