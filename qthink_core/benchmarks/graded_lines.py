"""Graded JSON lines, for `qthink grade`: one line of output for each line of input, whatever it contains."""

import json

from qthink_core.benchmarks.graders import grader
from qthink_core.benchmarks.graders.contract import Verdict
from qthink_core.benchmarks.json_lines import read_line
from qthink_core.errors import DataError

_EXPECTED = '{"gold": ..., "answer": "..."}'


def graded(benchmark: str, line: bytes, where: str) -> tuple[Verdict, str]:
    """The verdict on one line of input, and the line with it as one line of ASCII JSON.

    Raises DataError when the line is not a JSON object of UTF-8 with text in `answer` and this benchmark's gold in `gold`.
    """
    rules = grader(benchmark)
    try:
        row = read_line(line, where, _EXPECTED)
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
        return found.verdict, json.dumps(row | found._asdict(), allow_nan=False)
    except RecursionError:
        raise DataError(f"{where} is nested too deep to read: expected {_EXPECTED}") from None
