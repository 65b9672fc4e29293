"""Everything here that reads text of a model or of a file, and the exceptions that it may raise."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile import answers as hostile
from hypothesis import given, settings
from hypothesis import strategies as st

from qthink_core.artifacts import files
from qthink_core.benchmarks import graded_lines, json_lines
from qthink_core.benchmarks.graders import json_text, text, tooluse
from qthink_core.benchmarks.graders.latex import equality
from qthink_core.benchmarks.graders.latex.spelling import spelled
from qthink_core.benchmarks.graders.numbers import spelling, statement
from qthink_core.errors import DataError, ParamError
from qthink_core.inference import question, shown
from qthink_core.method.think import Marks, find_block
from qthink_core.pipeline import parameters
from qthink_core.pipeline.stage import printable
from qthink_core.report import answers, display

MARKS = Marks(think=1, end_think=2, newlines=frozenset({3, 4}), eos=5)
UNREAD = (json_text.UnreadableError, json_text.OverLimitError)
TEXT = st.lists(st.sampled_from(hostile.PIECES) | st.characters(exclude_categories=[]), max_size=30).map("".join)
# By name: the parser, and what it may raise.
OF_TEXT: dict[str, tuple[Callable[[str], Any], tuple[type[Exception], ...]]] = {
    "the answer without its thought": (text.without_thought, ()),
    "the last box": (text.last_boxed, ()),
    "the last box of LaTeX": (text.last_box_of_latex, ()),
    "the box of a solution": (text.solution_box, ()),
    "plain characters": (text.plain_characters, ()),
    "text that UTF-8 can hold": (lambda one: text.writable(one).encode(), ()),
    "plain spelling": (lambda one: spelling.flat(spelling.plain(one)), ()),
    "a number in a box": (lambda one: statement.in_box(spelling.plain(one)), ()),
    "the last number": (lambda one: statement.last(spelling.flat(spelling.plain(one))), ()),
    "the first number": (lambda one: statement.first(spelling.flat(spelling.plain(one)), 0, len(one)), ()),
    "a number in words": (statement.in_words, ()),
    "the calls of an answer": (tooluse.extract, ()),
    "a JSON object in a text": (lambda one: json_text.read_object(one, max(one.find("{"), 0)), UNREAD),
    "the tokens of think blocks": (lambda one: find_block([ord(letter) % 7 for letter in one], MARKS, one[:1] == "<"), ()),
    "a question": (lambda one: question.messages(one, "it"), (DataError,)),
    "text in a terminal": (shown.inert, ()),
    "text in a page": (display.visible, ()),
    "a cell of a table": (answers.safe, ()),
    "a line of a log": (printable, ()),
}
# Their callers limit the length, and the time is linear in it.
OF_EXPRESSIONS: dict[str, Callable[[str], Any]] = {
    "one spelling of LaTeX": lambda one: spelled(one, lambda word, spaced: spaced),
    "an equal answer in LaTeX": lambda one: equality.same(r"3\sqrt{13}", one),
    "an equal gold in LaTeX": lambda one: equality.same(one, "x"),
}
OF_BYTES: dict[str, tuple[Callable[[bytes], Any], tuple[type[Exception], ...]]] = {
    "a JSON file": (files.read_object, (ValueError,)),
    "a JSON line": (lambda line: json_lines.read_line(line, "it", "an object"), (DataError,)),
    "a line to grade": (lambda line: graded_lines.graded("gsm8k", line, "it"), (DataError,)),
    "a YAML file": (lambda content: parameters.parse_yaml(Path("params.yaml"), content), (ParamError, DataError)),
}
# By name: the parser, what it may raise, and what it is given.
ALL = (
    {name: (parse, raised, TEXT) for name, (parse, raised) in OF_TEXT.items()}
    | {name: (parse, (), TEXT.map(lambda one: one[:500])) for name, parse in OF_EXPRESSIONS.items()}
    | {
        name: (parse, raised, st.binary(max_size=200) | TEXT.map(lambda one: one.encode("utf-8", "surrogatepass")))
        for name, (parse, raised) in OF_BYTES.items()
    }
)


def raises_nothing_else(parser: str, examples: int) -> None:
    """Gives a parser this many texts or lines: it raises nothing but what it may raise."""
    parse, raised, texts = ALL[parser]

    @settings(max_examples=examples, deadline=None)
    @given(texts)
    def one(text: Any) -> None:
        with contextlib.suppress(*raised):
            parse(text)

    one()
