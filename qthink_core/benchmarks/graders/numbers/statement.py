r"""The number that a text states: in a box, after a mark, or as its last one.

A chain is what numbers and operators make together: `9 eggs * $2 = $18`, `36 / 2`, `18 to 20`. An equation states the
number that is alone on its last side, or else on its first (`18 = 9 × 2`). Several numbers without `=` state none.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Literal, NamedTuple

from qthink_core.benchmarks.graders.numbers import grammar
from qthink_core.benchmarks.graders.numbers.context import Number, magnitude, negated, sign
from qthink_core.benchmarks.graders.numbers.grammar import NUMBER
from qthink_core.benchmarks.graders.numbers.spelling import flat
from qthink_core.benchmarks.graders.numbers.vocabulary import MAGNITUDES, SCALES, SMALL, cardinal


class Stated(NamedTuple):
    """What was read, and its value, or None where it is not one number."""

    text: str
    value: Fraction | None


MAX_GAP_CHARS = 80
# Words that end what a number belongs to.
_STOP = (
    "and|or|but|so|since|because|as|which|who|where|when|while|if|then|thus|hence|therefore|is|are|was|were|be|given|with|we|she|he|it|"
    "they|that|this|not|to|plus|minus|times|divided|multiplied|over|x|answer|equals|gives|makes|totals|yields|leaves"
)
_UNITS = rf"(?:\s?(?!(?:{_STOP})\b)[^\W\d_]+\.?(?:/[^\W\d_]+)?(?![^\W_])){{0,3}}"
_CLOSE = r"[ \t$)\]}|%°\"'!]*"
_OPEN = r"[ \t$(\[{|\"'*-]*"
_HEAD = rf"{_CLOSE}(?:/ ?[^\W\d_]+)?{_UNITS}{_CLOSE}"
_NAME = r"(?:[^\W\d_]+\s?){0,3}"
_EQUAL = re.compile(rf"{_HEAD}\s*(?:=\s*(?!(?:{_STOP})\b){_NAME})+{_OPEN}")
_VERB = re.compile(
    rf"{_HEAD}(?:,? which)? ?\b(?:is|are|equals?|gives|makes|totals|yields|leaves|comes to|is equal to|will be)\b:?{_OPEN}"
    rf"|[^\S\n]?→{_OPEN}|, or {_OPEN}"
)
_OPERATOR_WORDS = "plus|minus|times|divided by|multiplied by|over|by|to|or(?: maybe| perhaps| possibly)?|mod"
_OPERATOR = re.compile(
    rf"{_HEAD}\s?(?:[-+*/×·÷^<>≤≥≠±∓√!⋯•]|[xX]\b|(?:{_OPERATOR_WORDS})\b){_OPEN}"
    r"|[)\]] ?[(\[][ \t$(\[-]*|[ \t$]{1,}|\(| [:%] |[ $]?%|[^\w\s,;?!.]{1,2}|[)\]]\$?|%? ?\\?%? of (?:the )?\$?"
)
_THOUSANDS = re.compile(rf"(?i: (?:{'|'.join(one for one in MAGNITUDES if one.isascii())}))(?: and)? ")
_LINK = re.compile(rf"{_HEAD}\s?(?:at|of|per|for|each|every|out of|@)(?: (?:the|each|every|a))?{_OPEN}")
_FROM = re.compile(r"\bfrom[ $]*$", re.IGNORECASE)
_INDEX = re.compile(r"[^\W\d_]_\(?$")
_LETTERS = re.compile(r"[^\W\d_]+$")
_TIMES_BEFORE = re.compile(r"[0-9)\]}]\s?[xX]$")
_BARE = re.compile(r"\$?(?P<minus>-)?\+?\$?(?P<number>[^-+$%]+(?:[eE][-+][0-9]+)?)[$%]?")
# "18 hours and 30 minutes", "18h30": one quantity in two units.
_COMPOUND = (
    r"(?:years?|months?|weeks?|days?|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s|feet|foot|ft|inch(?:es)?|yards?|miles?"
    r"|dollars?|cents?|pounds?|lbs?|ounces?|oz|gallons?|quarts?|pints?|meters?|metres?|kilometers?|kg|g|km|cm)"
)
_IN_TWO_UNITS = re.compile(rf" ?{_COMPOUND} ?(?:and )?", re.IGNORECASE)
_SECOND_UNIT = re.compile(rf" ?(?:{_COMPOUND}|in)\b", re.IGNORECASE)
_AND = re.compile(r",? (?:and|&) \$?")
_COMMA = re.compile(r"[,;] \$?")
_LIST_GOES_ON = re.compile(r"[)\]}$*]{0,3}(?:[.!?]?\s*+(?:\n|$)|[,;] |,? (?:and|or) )")
_LISTED_NAME = re.compile(r"(?<![^\W_])[A-Za-z] ?[,;] ?-?[$(]*[0-9.]|[0-9)] ?[,;] ?[A-Za-z](?![^\W_])")
_CARDINAL_WORD = "|".join([*SMALL, *SCALES])
_CARDINAL = re.compile(
    rf"[\s*_:$\"'(~=]*(?P<words>(?:{_CARDINAL_WORD})(?:(?:-|\s(?:and\s)?)(?:{_CARDINAL_WORD}))*)\b"
    r"(?! (?:of|half|halves|thirds?|quarters?|fourths?|fifths?|more|less|and a)\b|-)(?P<rest>[^\n.]{0,200})",
    re.IGNORECASE,
)
_CHANGED = re.compile(rf"[0-9+*/×·÷^]|\b(?:{_CARDINAL_WORD}|or|to|plus|minus|times|point|half)\b", re.IGNORECASE)


def numbers(text: str, begin: int = 0, stop: int | None = None) -> list[Number]:
    """The numbers of a part of a plain text, without indices and the digits of names such as `x18` and `mp3`."""
    stop = len(text) if stop is None else stop
    found = (Number(match, begin, stop) for match in NUMBER.finditer(text, begin, stop))
    return [number for number in found if not _is_name(text[max(begin, number.start - 20) : number.start])]


def _is_name(before: str) -> bool:
    """Whether digits after this text belong to a name: a Latin word, or one letter of an alphabet, touches them."""
    if _INDEX.search(before):
        return True
    letters = _LETTERS.search(before)
    if letters is None or _TIMES_BEFORE.search(before):
        return False
    return ord(letters[0][-1]) < 0x250 or (len(letters[0]) == 1 and ord(letters[0]) < 0x530)


def value(text: str) -> Fraction | None:
    """The value of a plain text that is one number in digits with at most a sign, a currency and a percent sign, or None."""
    found = _BARE.fullmatch(text.strip())
    number = NUMBER.fullmatch(found["number"]) if found else None
    size = grammar.value(number) if number else None
    return -size if found and found["minus"] and size is not None else size


def in_box(content: str) -> Stated | None:
    """What a box states, or None where it is empty. All of it counts: a box with an operator or two numbers has no value."""
    text = flat(content).strip(" \t\n*_`→")
    if not text:
        return None
    sides = [(side, numbers(side)) for side in re.split("=", text)]
    stating = [(side, found) for side, found in sides if found]
    unread = Stated(content, None)
    if not stating:
        return in_words(text) or unread
    between = [side for side, _ in sides[sides.index(stating[0]) : sides.index(stating[-1])]]
    if len(stating) > 1 and any(re.search(r"[,;\n]|\b(?:or|and)\b", side) for side in between):
        return unread
    for side, found in (stating[-1], stating[0]):
        if len(found) == 1 and not _LISTED_NAME.search(side):
            return _alone(side, found[0], boxed=True) if _has_no_other_digits(side, found[0]) else unread
    return unread


def _has_no_other_digits(side: str, number: Number) -> bool:
    return not any(one.isdigit() for one in side[: number.start] + side[number.end :])


def last(text: str) -> Stated | None:
    """What the last number of a plain text states that is not negated, or None where there is none."""
    return _stated(text, reversed(_chains(text, numbers(text), first_counts=False)))


def first(text: str, begin: int, stop: int) -> Stated | None:
    """What the first number of a part of a plain text states that is not negated, or a cardinal at its beginning."""
    found = numbers(text, begin, stop)
    words = in_words(text[begin:stop])
    return words or _stated(text, iter(_chains(text, found, first_counts=True)))


def in_words(text: str) -> Stated | None:
    """The cardinal that a text begins with, where nothing in its sentence changes it: "eighteen", "two hundred and five"."""
    match = _CARDINAL.match(text)
    if match is None or _CHANGED.search(match["rest"]):
        return None
    words = [word for word in re.split(r"[\s-]+", match["words"].lower()) if word != "and"]
    return Stated(match["words"], cardinal(words))


class Chain(NamedTuple):
    """Numbers that belong together, and after each but the last whether `=` or an operator follows."""

    numbers: list[Number]
    equals: list[bool]


def _chains(text: str, found: list[Number], *, first_counts: bool) -> list[Chain]:
    kinds = [_gap(text, left, right, first_counts) for left, right in pairwise(found)]
    calculated = False
    for index, kind in enumerate(kinds):
        if kind == "verb":  # "9 times 2 is 18" is an equation, "18 is 2 less than 20" is none
            kinds[index] = "=" if calculated else ""
        calculated = kind == "operator" or (calculated and kind == "link")
    equation = False
    for index in range(len(kinds) - 1, -1, -1):
        if kinds[index] == "link" and not equation:  # "9 eggs at $2 = $18" is an equation, "18 of 20" is none
            kinds[index] = ""
        equation = kinds[index] == "=" or (equation and bool(kinds[index]))
    chains: list[Chain] = []
    for number, kind in zip(found, ["", *kinds], strict=False):
        if kind:
            chains[-1].numbers.append(number)
            chains[-1].equals.append(kind == "=")
        else:
            chains.append(Chain([number], []))
    return chains


def _gap(text: str, left: Number, right: Number, first_counts: bool) -> Literal["", "=", "operator", "verb", "link"]:
    """What the text between two numbers makes of them."""
    gap = text[left.end : right.start]
    if len(gap) > MAX_GAP_CHARS:
        return ""
    if first_counts and (_AND.fullmatch(gap) or (_COMMA.fullmatch(gap) and _LIST_GOES_ON.match(text, right.end))):
        return "operator"  # "The answer is 7, 8." and "7 and 8" are two answers
    if _EQUAL.fullmatch(gap):
        return "="
    if _IN_TWO_UNITS.fullmatch(gap) and (not gap.endswith(" ") or _SECOND_UNIT.match(text, right.end)):
        return "operator"
    if _OPERATOR.fullmatch(gap) or _THOUSANDS.fullmatch(gap):
        if " of " in gap and "%" not in gap and "/" not in left.match[0]:
            return "link"
        # "it rises from 10 to 18" states 18 where the last number counts
        leaves = " to " in gap and not first_counts and _FROM.search(text[max(left.begin, left.start - 20) : left.start])
        return "" if leaves else "operator"
    return "verb" if _VERB.fullmatch(gap) else "link" if _LINK.fullmatch(gap) else ""


def _stated(text: str, chains: Iterator[Chain]) -> Stated | None:
    for chain in chains:
        if not negated(text, chain.numbers[0]):
            return _result(text, chain)
    return None


def _result(text: str, chain: Chain) -> Stated:
    """The number alone on the last side of an equation, or else on the first."""
    numbers, equals = chain
    if not equals or equals[-1]:
        return _alone(text, numbers[-1], boxed=False)
    if equals[0]:
        return _alone(text, numbers[0], boxed=False)
    return Stated(text[numbers[0].start : numbers[-1].end], None)


def _alone(text: str, number: Number, *, boxed: bool) -> Stated:
    """One number with its sign and magnitude, or without a value where its surroundings make it an expression."""
    around = Stated(text[max(number.begin, number.start - 1) : number.end + 1].strip(), None)
    found = magnitude(text, number, boxed)
    direction = sign(text, number, boxed)
    if found is None or direction is None:
        return around
    factor, end = found
    size = grammar.value(number.match)
    rounded = any(one in text[max(number.begin, number.start - 3) : number.start] for one in "⌊⌈")
    if size is None or (rounded and size.denominator > 1):
        return around
    return Stated(("-" if direction < 0 else "") + text[number.start : end].replace("\n", " "), direction * factor * size)
