"""Graded JSON lines, for `qthink grade`: one line of output for each line of input, whatever it contains."""

import json
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from qthink_core.benchmarks.graders import grader
from qthink_core.errors import DataError

# At most 100,000 characters of an answer are read; the thought before it and other fields may take the rest.
MAX_LINE_BYTES = 8 << 20
_EXPECTED = '{"gold": ..., "answer": "..."}'


def lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers from 1, each as soon as it arrives; raises DataError at one that is too long."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"line {number} has more than {MAX_LINE_BYTES:,} bytes: shorten or drop it")
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def graded(benchmark: str, line: bytes, where: str) -> str:
    """One line of input with its verdict, as one line of ASCII JSON.

    Raises DataError when the line is not a JSON object of UTF-8 with text in `answer` and this benchmark's gold in `gold`.
    """
    rules = grader(benchmark)
    try:
        row = _object(line, where)
        if "gold" not in row:
            raise DataError(f"{where} has no field 'gold': expected {_EXPECTED}")
        gold = rules.gold(row.pop("gold"), where)
        answer = row.pop("answer", None)
        if not isinstance(answer, str):
            raise DataError(f"{where} has {type(answer).__name__} {answer!r:.60} in field 'answer', expected text: fix it")
        found = rules.grade(gold, answer)
        for name in found._fields:
            row.pop(name, None)
        # ASCII, so that no control character or direction mark reaches a terminal, and no lone surrogate breaks an encoder.
        return json.dumps(row | found._asdict(), allow_nan=False)
    except RecursionError:
        raise DataError(f"{where} is nested too deep to read: expected {_EXPECTED}") from None


def _object(line: bytes, where: str) -> dict[str, object]:
    if not line.strip():
        raise DataError(f"{where} is empty: expected {_EXPECTED}; drop the line")
    try:
        row = json.loads(line.decode(), object_pairs_hook=_without_doubles, parse_constant=_refused, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 (byte {error.start + 1}, {error.reason}): convert the file") from None
    except ValueError as error:  # also integers of 5,000 digits
        raise DataError(f"{where} is not JSON ({error}): expected {_EXPECTED}") from None
    if not isinstance(row, dict):
        raise DataError(f"{where} holds a JSON {type(row).__name__}: expected {_EXPECTED}")
    return row


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made: dict[str, object] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"field {name!r:.60} appears twice")
        made[name] = value
    return made


def _refused(text: str) -> NoReturn:
    raise ValueError(f"{text:.40} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if abs(value) < float("inf") else _refused(text)
