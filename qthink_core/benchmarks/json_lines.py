"""JSON lines that come from outside: read one at a time, with a limit on their length."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from qthink_core.artifacts.files import read_object
from qthink_core.errors import DataError

# At most 100,000 characters of an answer are graded; a thought before it and other fields may take the rest.
MAX_LINE_BYTES = 8 << 20


def lines(file: BinaryIO, named: str = "line") -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers from 1, each as soon as it arrives.

    Raises DataError at a line that is too long: `line 7 has ...`, or what `named` says in place of `line`.
    """
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{named} {number} has more than {MAX_LINE_BYTES:,} bytes: shorten or drop it")
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def read_line(line: bytes, where: str, expected: str) -> dict[str, Any]:
    """The object in a line; raises DataError that names the line, `where`, and shows the `expected` form."""
    if not line.strip():
        raise DataError(f"{where} is empty: expected {expected}; drop the line")
    try:
        return read_object(line)
    except ValueError as error:
        raise DataError(f"{where} {error}: expected {expected}") from None
