"""JSON objects inside model text, read within limits.

`json.loads` alone makes `1e999` infinite and 3.00000000000000001 equal to 3, and raises RecursionError at depth 10^5 and a
plain ValueError at 5,000 digits.
Our own files are read with artifacts/files.py.
"""

import json
import math
import re
from decimal import Decimal, InvalidOperation
from typing import NoReturn

MAX_DEPTH = 32
MAX_NUMBER_CHARS = 40

# possessive, and an unclosed string runs to the end, so that one pass suffices without backtracking
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[{}\[\]]', re.DOTALL)


class UnreadableError(ValueError):
    """The text has no JSON object with finite numbers at that place."""


class OverLimitError(ValueError):
    """The object is nested too deep, or has a number that is too long."""


def read_object(text: str, start: int) -> tuple[dict[str, object], int]:
    """The JSON object that begins at `start`, with exact decimals, and the position after its closing brace.

    Raises UnreadableError or OverLimitError; the depth is known before the parser sees the text.
    """
    if not text.startswith("{", start):
        raise UnreadableError
    depth = 0
    for token in _TOKEN.finditer(text, start):
        if token[0] in "{[":
            depth += 1
            if depth > MAX_DEPTH:
                raise OverLimitError
        elif token[0] in "}]":
            depth -= 1
            if depth == 0:
                return _loads(text[start : token.end()]), token.end()
    raise UnreadableError


def same(left: object, right: object) -> bool:
    """Whether two JSON values are equal: 1 equals 1.0, but `true` does not equal 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _loads(text: str) -> dict[str, object]:
    try:
        return json.loads(text, parse_int=_integer, parse_float=_finite, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise UnreadableError from error


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARS:
        raise OverLimitError
    return int(text)


def _finite(text: str) -> Decimal:
    if len(text) > MAX_NUMBER_CHARS:
        raise OverLimitError
    if not math.isfinite(float(text)):
        _refuse(text)
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of twenty digits
        raise OverLimitError from None


def _refuse(_text: str) -> NoReturn:
    raise UnreadableError
