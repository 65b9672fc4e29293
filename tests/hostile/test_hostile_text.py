"""Any text at all: a parser raises nothing but what it says, and what is shown controls neither terminal nor page."""

import json
import unicodedata
from html.parser import HTMLParser

import pytest
from hostile import answers, parsers
from hypothesis import given, settings

from qthink_core.benchmarks import graded_lines
from qthink_core.inference.shown import inert
from qthink_core.pipeline.stage import printable
from qthink_core.report.answers import FORMULA, safe
from qthink_core.report.display import plain, visible


@pytest.mark.parametrize("parser", parsers.ALL)
def test_a_parser_raises_nothing_else(parser: str) -> None:
    parsers.raises_nothing_else(parser, 40)


class Tags(HTMLParser):
    """The elements of a piece of HTML, with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: set[tuple[str, tuple[tuple[str, str | None], ...]]] = set()
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add((tag, tuple(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def controls(text: str, allowed: str) -> set[str]:
    """The characters of a text that a terminal or a reader of bidirectional text obeys."""
    return {one for one in text if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") and one not in allowed}


def shows_nothing_but_text(text: str) -> None:
    """Checks every way in which text of a model or of a file is shown."""
    assert not controls(inert(text), "\n\t")
    assert not controls(plain(text), "\n")
    assert not controls(printable(text), "")
    cell = safe(text)
    assert not cell.lstrip().startswith(FORMULA)
    assert not controls(cell, "\n")
    shown = Tags(str(visible(text)))
    assert shown.found <= {("span", (("class", "hidden-char"),))}
    assert not controls(shown.text, "\n")


def test_every_hostile_answer_is_shown_as_text() -> None:
    texts = [row.answer[:300] for row in answers.read()]
    assert len(texts) > 1500
    for text in dict.fromkeys(texts):
        shows_nothing_but_text(text)


@settings(max_examples=40, deadline=None)
@given(text=parsers.TEXT)
def test_any_text_is_shown_as_text(text: str) -> None:
    shows_nothing_but_text(text)


def test_a_graded_line_is_one_line_of_ascii_whatever_it_holds() -> None:
    for row in answers.read():
        if row.kind in ("code", "control", "names", "calls") and row.benchmark == "tooluse":
            given = json.dumps({"id": row.answer, row.answer: 1, "gold": "18", "answer": row.answer}).encode()
            _, written = graded_lines.graded("gsm8k", given, "it")
            assert written.isascii()
            assert written.isprintable()
            assert json.loads(written)["id"] == row.answer
