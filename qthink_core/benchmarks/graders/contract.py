"""The types of every grader: a problem, a grade, a published file; and the checks of their fields."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from qthink_core.errors import DataError

Verdict = Literal["right", "wrong", "unparsable", "over_limit", "timeout"]
# Why a row of a data set is left out; the numbers by reason are in the manifest of the problems.
Reason = Literal[
    "not JSON",
    "not UTF-8",
    "empty line",
    "too long",
    "missing field",
    "not text",
    "no gold",
    "no box",
    "gold does not match its answer",
    "doubled id",
    "doubled question",
    "in the test set",
    "in the training set",
]

# 2,048 tokens of Qwen3 are about 8,000 characters of prose; every extraction rule takes linear time.
MAX_ANSWER_CHARS = 100_000
MAX_ID_CHARS = 200


class Problem(NamedTuple):
    """One item of a benchmark: the exact user message, the gold, and the published worked solution, whole."""

    id: str
    question: str
    gold: str
    rationale: str | None


class Grade(NamedTuple):
    """A verdict, the extracted text that was compared, and the further scores of the benchmark by name."""

    verdict: Verdict
    extracted: str | None
    details: dict[str, bool]


class PublishedFile(NamedTuple):
    """The file of one published split, relative to the data folder, its number of records and its sha256.

    `content` is the sha256 of the fields that are read, whatever the form of the file (`source_rows.content`).
    """

    path: str
    records: int
    sha256: str
    content: str


class RowError(DataError):
    """A row that cannot be used: a sentence about it, and the reason in the words by which such rows are counted."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def text_field(row: Mapping[str, object], name: str, where: str) -> str:
    """The non-empty text of one field.

    Raises DataError where the field is missing, empty, of another type, or cannot be written as UTF-8.
    """
    if row.get(name) is None:
        raise RowError("missing field", f"{where} has nothing in field {name!r}, expected non-empty text: fix or drop it")
    if isinstance(row[name], int | float):
        raise RowError(
            "not text", f"{where} has {_shown(row[name])} in field {name!r}, expected non-empty text: fix or drop it"
        )
    return text_of(row[name], name, where)


def text_of(value: object, name: str, where: str) -> str:
    """The non-empty text of a field, or the digits of its number.

    Raises DataError where it is empty, of another type, or cannot be written as UTF-8.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        reason: Reason = "missing field" if value is None or isinstance(value, str) else "not text"
        raise RowError(reason, f"{where} has {_shown(value)} in field {name!r}, expected non-empty text: fix or drop it")
    if "\0" in value:
        raise RowError("not text", f"{where} has a NUL character in field {name!r}, expected text: fix or drop it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError(
            "not text",
            f"{where} has a lone surrogate at character {error.start} of field {name!r}, "
            "expected text that UTF-8 can hold: fix or drop it",
        ) from None
    if not any(one.isprintable() and not one.isspace() for one in value):  # U+200B and others without a shape
        raise RowError("missing field", f"{where} has nothing that can be seen in field {name!r}: fix or drop it")
    return value


def id_field(row: Mapping[str, object], name: str, where: str) -> str:
    """The id of a row in one of its fields; raises RowError where it is no short text in one line."""
    found = text_field(row, name, where)
    if len(found) > MAX_ID_CHARS or not found.isprintable():
        raise RowError(
            "not text",
            f"{where} has {_shown(found)} in field {name!r}, expected an id of at most {MAX_ID_CHARS} characters in one "
            "line: fix or drop it",
        )
    return found


def _shown(value: object) -> str:
    return f"{type(value).__name__} {value!r:.60}"


def require_right(grade: Grade, gold: str, where: str) -> None:
    """Raises RowError where the published answer of a row does not match its own gold."""
    if grade.verdict != "right":
        raise RowError(
            "gold does not match its answer",
            f"{where} has the gold {gold!r:.80}, which its own answer does not match "
            f"(verdict {grade.verdict}, extracted {grade.extracted!r:.80}): fix or drop the row",
        )
