"""Answered JSON lines, for `qthink answer`: one line of output for each line of input, in order."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from qthink_core.artifacts.completions import LENGTH
from qthink_core.artifacts.files import canonical_json, read_object, read_small, storage, write_file
from qthink_core.benchmarks.json_lines import lines, read_line
from qthink_core.errors import DataError, ParamError, QThinkError
from qthink_core.inference.earlier import difference
from qthink_core.inference.locks import locked
from qthink_core.inference.question import Question
from qthink_core.inference.reasoner import LatentReasoner
from qthink_core.inference.settings import Settings
from qthink_core.inference.shown import count

EXPECTED = '{"question": "..."} or {"messages": [{"role": "user", "content": "..."}]}'
ADDED = ("answer", "finish", "tokens", "latent_steps", "prompt_tokens", "seconds")


class Asked(NamedTuple):
    """A line of input: its number, its fields, and its prompt as token ids."""

    number: int
    row: dict[str, Any]
    prompt: list[int]


class Answered(NamedTuple):
    """A line with its answer as ASCII JSON, and whether the token limit cut the answer."""

    line: str
    cut: bool


def answered(reasoner: LatentReasoner, source: Iterable[tuple[int, bytes]], how: Settings, batch: int) -> Iterator[Answered]:
    """The lines with their answers, `batch` questions at a time.

    Question n draws from the stream of (seed, n), wherever the run began. Raises DataError at a line that is not of the
    expected form or too long for the model, after the answers to the lines before it.
    """
    waiting: list[Asked] = []
    for number, line in source:
        try:
            waiting.append(asked(reasoner, number, line, how))
        except QThinkError:
            yield from _answers(reasoner, waiting, how)
            raise
        if len(waiting) == batch:
            yield from _answers(reasoner, waiting, how)
            waiting = []
    yield from _answers(reasoner, waiting, how)


def number_of_lines(source: BinaryIO) -> int | None:
    """The number of lines that are left in a file, which stays where it is; None for a pipe or a terminal."""
    if not source.seekable():
        return None
    start, number, last = source.tell(), 0, b"\n"
    while block := source.read(1 << 20):
        number, last = number + block.count(b"\n"), block[-1:]
    source.seek(start)
    return number + (last != b"\n")


def asked(reasoner: LatentReasoner, number: int, line: bytes, how: Settings) -> Asked:
    """A line of input with its prompt; raises DataError when it is not of the expected form or does not fit the model."""
    where = f"line {number}"
    row = _row(line, where)
    try:
        prompt = reasoner.prompt(question(row, where))
    except DataError as error:
        raise DataError(f"{where}: {error}") if not str(error).startswith(where) else error from None
    reasoner.room(prompt, how, where)
    return Asked(number, row, prompt)


def _row(line: bytes, where: str) -> dict[str, Any]:
    row = read_line(line, where, EXPECTED)
    for name in ADDED:
        if name in row:
            example = ", for example to 'gold'" if name == "answer" else ""
            raise DataError(f"{where} has a field {name!r}, which the output needs for its own: rename it{example}")
    return row


def question(row: dict[str, Any], where: str) -> Question:
    """The question of a row, from `question` or `messages`; raises DataError when it has neither, both or another type."""
    if "question" in row and "messages" in row:
        raise DataError(f"{where} has both 'question' and 'messages': leave one of them out")
    if "question" not in row and "messages" not in row:
        raise DataError(f"{where} needs one of the fields 'question' and 'messages': expected {EXPECTED}")
    if isinstance(text := row.get("question"), str):
        return text
    messages = row.get("messages")
    if "messages" not in row or not isinstance(messages, list) or not messages:
        raise DataError(f"{where} has no text in 'question' and no list in 'messages': expected {EXPECTED}")
    for message in messages:
        if not isinstance(message, dict) or not all(isinstance(message.get(name), str) for name in ("role", "content")):
            raise DataError(f"{where} has a message without the texts 'role' and 'content': expected {EXPECTED}")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _answers(reasoner: LatentReasoner, waiting: list[Asked], how: Settings) -> Iterator[Answered]:
    if not waiting:
        return
    found = reasoner.respond([one.prompt for one in waiting], how, [one.number - 1 for one in waiting])
    for one, response in zip(waiting, found, strict=True):
        added = (
            response.text,
            response.finish,
            response.new_tokens,
            response.latent_steps,
            response.prompt_tokens,
            round(response.seconds / response.batch, 6),
        )
        # ASCII, so that no control character or direction mark reaches a terminal
        yield Answered(
            json.dumps(one.row | dict(zip(ADDED, added, strict=True)), allow_nan=False), response.finish == LENGTH
        )


@contextlib.contextmanager
def opened(out: Path) -> Iterator[BinaryIO]:
    """The file of answers, made if there is none; no other process may write to it meanwhile.

    Raises ParamError when `out` is not a file or its folder does not exist, StoppedError while another process writes to it,
    and StorageError where it cannot be written.
    """
    if out.exists() and not out.is_file():
        raise ParamError(f"{out} is {'a folder' if out.is_dir() else 'not a regular file'}: name a file with --out")
    if not out.parent.is_dir():
        raise ParamError(f"the folder {out.parent} of --out does not exist: make it first, or name another file")
    with locked(out, out) as file:
        yield file


def resume(out: Path, run: dict[str, Any]) -> int:
    """The number of whole lines that an earlier run of the same command left in `out`; a torn last line is cut off.

    `run` (model, latent steps, settings) is kept beside it in `<out>.run.json`. Raises ParamError when the file has answers
    without that record, or was made by another command, and DataError when the record is damaged.
    """
    record = out.with_name(f"{out.name}.run.json")
    wanted = json.loads(canonical_json(run))
    raw = out.read_bytes() if out.exists() else b""
    if not raw:
        write_file(record, canonical_json(run))
        return 0
    try:
        found = read_object(read_small(record)) if record.is_file() else {}
    except ValueError as error:
        raise DataError(f"{record} {error}: give another file with --out, or delete {out}") from None
    different = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if different:
        was = f"no {record.name} beside it"
        if found:
            was = ", ".join(difference(name, found.get(name), wanted.get(name)) for name in different)
        raise ParamError(f"{out} was made by another run ({was}): give another file, or delete it")
    whole = raw.rfind(b"\n") + 1
    if whole < len(raw):
        with storage(out):
            os.truncate(out, whole)
    return raw.count(b"\n")


def continued(source: Iterable[tuple[int, bytes]], out: Path, done: int) -> Iterator[tuple[int, bytes]]:
    """The lines of input after the first `done`.

    Raises DataError when one of those is not the line that was answered, when they end before `done`, and when a line of
    `out` is damaged.
    """
    number = 0
    with out.open("rb") as file:
        kept = lines(file, f"{out}, line")
        for number, line in source:
            if number > done:
                yield number, line
                continue
            where = f"line {number}"
            row, before = _row(line, where), _kept(next(kept)[1], f"{out}, line {number}")
            if before != row:
                raise DataError(f"{where} is not the question that {out} has answered there: give another file with --out")
    if number < done:
        whole = count(done, "answer")
        raise DataError(f"the input ends after line {number}, and {out} has {whole}: give the whole input again")


def _kept(line: bytes, where: str) -> dict[str, Any]:
    """The input's fields of a line that was answered."""
    fix = "cut the file before this line and run the command again, or give another file with --out"
    try:
        row = read_object(line)
    except ValueError as error:
        raise DataError(f"{where} {error}: {fix}") from None
    for name in ADDED:
        if name not in row:
            raise DataError(f"{where} has no field {name!r}: {fix}")
        del row[name]
    return row
