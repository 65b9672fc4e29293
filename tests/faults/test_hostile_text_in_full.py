"""Parsers on thousands of texts and on long ones: no exception that they do not name, and linear time."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from hostile import parsers
from hostile.answers import PIECES

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
# Eight times the length takes eight times the time; what grows with the square would take 64 times.
SHORT, LONG = 12_500, 100_000
MOST_TIMES, NOISE_S = 24, 0.2
MEGABYTE = 1_000_000
OF_A_MEGABYTE = (
    "the answer without its thought",
    "text in a terminal",
    "text in a page",
    "a cell of a table",
    "a line of a log",
)


@pytest.mark.parametrize("parser", parsers.ALL)
def test_a_parser_raises_nothing_else(parser: str) -> None:
    parsers.raises_nothing_else(parser, 3000)


@pytest.mark.parametrize("parser", parsers.OF_TEXT)
def test_eight_times_the_text_takes_about_eight_times_the_time(parser: str) -> None:
    parse, raised = parsers.OF_TEXT[parser]
    for piece in PIECES:
        short, long = (spent(parse, raised, (piece * (size // len(piece) + 1))[:size]) for size in (SHORT, LONG))
        assert long < MOST_TIMES * short + NOISE_S, ascii(piece)


@pytest.mark.parametrize("parser", OF_A_MEGABYTE)
def test_a_megabyte_takes_about_ten_times_the_time_of_a_tenth(parser: str) -> None:
    parse, raised = parsers.OF_TEXT[parser]
    for piece in PIECES:
        short, long = (
            spent(parse, raised, (piece * (size // len(piece) + 1))[:size]) for size in (MEGABYTE // 10, MEGABYTE)
        )
        assert long < 3 * 10 * short + NOISE_S, ascii(piece)


@pytest.mark.parametrize("parser", parsers.OF_BYTES)
def test_a_line_of_a_megabyte_takes_linear_time(parser: str) -> None:
    parse, raised = parsers.OF_BYTES[parser]
    for piece in ('{"a":', "[", '"a",', "1,", '{"a": "', "\\", "x"):
        contents = ((piece * (size // len(piece))).encode() for size in (MEGABYTE // 10, MEGABYTE))
        short, long = (spent(parse, raised, content) for content in contents)
        assert long < 3 * 10 * short + NOISE_S, piece


def spent(parse: Callable[[Any], Any], raised: tuple[type[Exception], ...], content: Any) -> float:
    """Seconds of the processor."""
    begun = time.process_time()
    with contextlib.suppress(*raised):
        parse(content)
    return time.process_time() - begun
