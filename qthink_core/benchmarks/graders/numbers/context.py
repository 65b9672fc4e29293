r"""What the characters and words around one number make of it: its sign, its magnitude, or an expression without a value.

Before it: one sign (`-`, `minus`, in front of a bracket or a currency too) makes it negative; two signs, a root, a relation,
another operator, or a phrase such as "half of" or "more than" make it an expression.
After it: `million` and its like multiply it; a power, an index, a factorial (in a box), a relation, an operator before a
name, or a letter that touches it and is not a unit (`18k`, `18x`) make it an expression. So does any symbol of mathematics
that is not known here.
"""

import re
import unicodedata
from typing import NamedTuple

from qthink_core.benchmarks.graders.numbers.vocabulary import (
    CURRENCIES,
    FUNCTION_BEFORE,
    FUNCTION_BEFORE_IN_A_BOX,
    LENGTHS,
    MAGNITUDES,
    NEGATIVE,
    OPERATES,
    OPERATES_IN_A_BOX,
    UNIT_LETTERS,
    UNIT_PAIRS,
    VERBS,
)

# How far the words that change a number may be from it.
REACH = 60

_OPENERS = " \t$([{|⌊⌈\"'“”`"
_CLOSERS = " \t$)]}|⌋⌉\"'“”`"
_OPERATORS = frozenset("+-*/×·÷^_\\!‰‱")
_HARMLESS_SYMBOLS = frozenset("=~|→←°")
_HARMLESS_IN_A_BOX = frozenset(".,;:'\"%#°$&?¿@=~|…。、℃℉№✓✔✅-")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]{2,})?")
_LAST_WORD = re.compile(r"[^\W\d_]+$")
_COMMAND = re.compile(r"\\[A-Za-z]+(?:_\(?\w{1,9}\)?)?$")
_FUNCTION = re.compile(rf"(?<![^\W\d_])(?:{FUNCTION_BEFORE})$", re.IGNORECASE)
_FUNCTION_IN_A_BOX = re.compile(rf"(?<![^\W\d_])(?:{FUNCTION_BEFORE_IN_A_BOX})$", re.IGNORECASE)
_NEGATED = re.compile(
    r"(?:(?<![^\W\d_])(?:not|cannot|never|neither|nor|isnt|instead of|rather than|no longer|unlike|anything but|other than)"
    r"|n't|≠|不是|并非|不等于|(?<![^\W_])не):?"
    r"(?:\s+(?:be|been|have|equal|equals|to|a|an|the|just|simply|exactly|quite|actually|really|answer|number))*[\s$(\"'`*-]*$",
    re.IGNORECASE,
)
_REJECTED = re.compile(r"[)\s$*]{0,4}(?:is|was|are|were)(?:n't| not| wrong| incorrect)(?![^\W_])", re.IGNORECASE)
_DIGIT_AFTER_UNIT = re.compile(rf"(?!(?:{LENGTHS})[23](?![^\W_]))[^\W\d_]+[0-9]")
_TIMES_A_NAME = re.compile(r"times [b-zB-Z](?![^\W_])")
_ABBREVIATION = re.compile(r"[A-Za-z]\.[A-Za-z](?![^\W_])")
_AND_A_PART = re.compile(
    r"(?:and|&) (?:a|an|one|two|three|four|five) (?:half|halves|thirds?|quarters?|fourths?|fifths?)", re.IGNORECASE
)
_TEMPERATURE = re.compile(r"^(?:%|° ?(?:[CFK](?![^\W_]))?)")
_MINUS_OR_VARIABLE = re.compile(r"^-(?![^\W\d_]{2,})| -|(?<![^\W_])[knxyz](?![^\W_])")
_PER_UNIT = re.compile(r"/ ?(?:[^\W\d_]{2,}|[hs]\b)")


class Number(NamedTuple):
    """One number of a text: its match, and the part of the text that may change it."""

    match: re.Match[str]
    begin: int
    stop: int

    @property
    def start(self) -> int:
        return self.match.start()

    @property
    def end(self) -> int:
        return self.match.end()


def negated(text: str, number: Number) -> bool:
    """Whether the text says that the answer is another one: "not 5", "isn't 5", "5 is wrong"."""
    before = text[max(number.begin, number.start - REACH) : number.start]
    return bool(_NEGATED.search(before) or _REJECTED.match(text, number.end, number.stop))


def sign(text: str, number: Number, boxed: bool) -> int | None:
    """1 or -1, or None where what is before the number makes it an expression."""
    before = text[max(number.begin, number.start - REACH) : number.start]
    bare = before.rstrip(_OPENERS)
    if bare[-1:] in ("+", "-"):
        return _after_a_sign(bare, before[len(bare) :], number.begin, boxed)
    word = _LAST_WORD.search(bare)
    if word and word[0].lower() in NEGATIVE:
        rest = bare[: word.start()].rstrip(_OPENERS)
        return None if rest[-1:] in ("+", "-") or (boxed and rest and rest[-1] not in "=:") else -1
    return None if _is_expression_before(bare, before[len(bare) :], boxed) else 1


def _after_a_sign(bare: str, between: str, begin: int, boxed: bool) -> int | None:
    """The sign where `bare` ends in + or -: of the number, or of a subtraction, or a dash or a bullet."""
    outer = bare[:-1].rstrip(" \t")
    negative = -1 if bare[-1] == "-" else 1
    spaced, last = between[:1].isspace(), outer[-1:]
    if not last or last == "\n":
        bullet = spaced and not boxed and (last == "\n" or begin == 0)
        return 1 if bullet else negative
    if last.isalnum() or last in ")]}%":
        word = _LAST_WORD.search(outer)
        glued = outer == bare[:-1]
        if glued and ord(last) >= 0x500 and last.isalpha():
            return negative  # words of other scripts touch their numbers
        if boxed or last in ")]}%" or last.isdigit() or (word and len(word[0]) == 1 and word[0].isascii()):
            return None
        if spaced:
            return negative if word and word[0].lower() in VERBS else 1  # "is - 18" and "Total - 18"
        return 1 if glued and ord(last) < 0x250 else negative  # "Apollo-11", "is -18"
    outer_bare = outer.rstrip(_OPENERS)
    if "|" in outer[len(outer_bare) :] or outer_bare[-1:] in ("+", "-"):
        return None
    return None if _is_expression_before(outer_bare, "", boxed) else negative


def _is_expression_before(bare: str, between: str, boxed: bool) -> bool:
    if not bare:
        return False
    last = bare[-1]
    outer = bare[:-1].rstrip(" \t")
    if last in "*·>" and between[:1] == " " and not boxed and (outer.endswith("\n") or (not outer and last != ">")):
        return False  # a bullet or a quotation
    if unicodedata.category(last) == "Pd" and not between and (not outer or outer != bare[:-1]):
        return True  # "is —18"
    if last == "ー" and not re.search("[ァ-ヺ]$", outer):
        return True  # the long vowel mark as a minus
    if between[:1] == "(" and re.search(r"(?<![^\W_])[^\W\d_]$", bare):
        return True  # f(18)
    if (
        last in _OPERATORS - {"!"}
        or (boxed and last == "%")
        or _is_symbol(last, boxed)
        or (boxed and _is_expression_text(bare))
        or (last in ")]}" and (boxed or not between))
    ):
        return True
    if _COMMAND.search(bare):
        return True
    word = _LAST_WORD.search(bare)
    if word and len(word[0]) == 1 and (word[0] in "xX" or (boxed and word[0].isascii() and word[0] not in "aA")):
        return True
    return bool((_FUNCTION_IN_A_BOX if boxed else _FUNCTION).search(bare))


def _is_symbol(character: str, boxed: bool) -> bool:
    """Whether a character calculates, compares or counts; in a box any symbol does that is not known to be harmless."""
    category = unicodedata.category(character)
    if boxed:
        return character not in _HARMLESS_IN_A_BOX and category in {"Sm", "So", "Sk", "Po", "Pc", "Pd", "Me", "No", "Nl"}
    return character not in _HARMLESS_SYMBOLS and category in {"Sm", "No", "Nl"}


def magnitude(text: str, number: Number, boxed: bool) -> tuple[int, int] | None:
    """What multiplies the number, and where its words end, or None where what is after it makes it an expression."""
    factor, end = 1, number.end
    while True:
        after = text[end : min(number.stop, end + REACH)]
        close = after.lstrip(_CLOSERS)
        word = _WORD.match(close)
        if word is None or not (times := _magnitude(word[0])):
            break
        factor *= times
        end += len(after) - len(close) + (word.end() if word[0].isascii() else 1)
        if factor > 10**15:
            return None
    decimal = "." in number.match[0]
    money = "$" in text[max(number.begin, number.start - 3) : number.start]
    return None if _is_expression_after(after, close, word, boxed, decimal, money) else (factor, end)


def _magnitude(word: str) -> int | None:
    """What a word multiplies by: `million`; 万 multiplies with another word after it too."""
    return MAGNITUDES.get(word) or MAGNITUDES.get(word.lower() if word.isascii() else word[0])


def _is_expression_after(
    after: str, close: str, word: re.Match[str] | None, boxed: bool, decimal: bool, money: bool
) -> bool:
    if not close:
        return False
    if unicodedata.category(after[0]) in {"Mn", "Mc", "Me", "No", "Nl"}:
        return True
    if word and _ABBREVIATION.match(close):
        return False  # 18 p.m.
    if word and (_DIGIT_AFTER_UNIT.match(close) or _TIMES_A_NAME.match(close)):
        return True  # 18h30
    if word:
        touching = after is close or after == close
        return _is_changed_by(word[0], touching, boxed, money) or bool(_AND_A_PART.match(close)) or (
            boxed and _is_expression_text(close[word.end() :])
        )  # fmt: skip
    first, rest = close[0], close[1:].lstrip(" \t$([{")
    if first in "%°":
        after = _TEMPERATURE.sub("", close)
        close = after.lstrip(_CLOSERS)
        return _is_expression_after(after, close, _WORD.match(close), boxed, decimal, money)
    if close.startswith(("...", "…")):
        return decimal or (boxed and bool(close.strip(" .…")))
    if first == "/" and _PER_UNIT.match(close):
        return False
    if boxed:
        return _is_expression_text(close) or bool(re.match(r":\s?\w", close))
    if first in "^_\\×÷·‰‱" or (_is_symbol(first, boxed) and first != "+"):
        return True
    letter = re.match(r"[A-Za-z](?![A-Za-z])", rest)
    if first == "+":
        return True  # "18+" is 18 or more
    if first in "-/*":
        return bool(letter and letter[0] not in "aI")
    return False


def _is_changed_by(word: str, touching: bool, boxed: bool, money: bool) -> bool:
    """Whether a word after a number makes it an expression."""
    lower, latin = word.lower(), ord(word[0]) < 0x250
    if lower in (OPERATES_IN_A_BOX if boxed else OPERATES):
        return True
    if len(word) == 1 and ord(word) < 0x500:
        if word in UNIT_LETTERS:
            return word == "m" and money
        if touching or boxed:
            return touching or word not in "aA"
        return word in "KMBkxXyzn"
    if word[0] in "十百千" and not word.startswith(("千克", "千米", "百分")):
        return True
    return latin and len(word) == 2 and (touching or boxed) and word.upper() != word and word not in UNIT_PAIRS | CURRENCIES


def _is_expression_text(text: str) -> bool:
    """Whether the rest of a box has a variable, or an operator other than in a unit such as km/h."""
    rest = _PER_UNIT.sub("", text)
    return any(_is_symbol(one, True) for one in rest) or bool(_MINUS_OR_VARIABLE.search(rest))
