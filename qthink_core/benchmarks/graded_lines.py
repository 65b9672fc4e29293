"""Graded JSON lines, for `qthink grade`: one line of output for each line of input, whatever it contains."""

import json
from collections.abc import Iterator
from typing import BinaryIO

from qthink_core.artifacts.files import read_object
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
        if "answer" not in row:
            raise DataError(f"{where} has no field 'answer': expected {_EXPECTED}")
        answer = row.pop("answer")
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
        return read_object(line)
    except ValueError as error:
        raise DataError(f"{where} {error}: expected {_EXPECTED}") from None
