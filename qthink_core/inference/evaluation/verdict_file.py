"""The verdict file of an evaluation or an audit: a JSON line for each answer, written batch by batch.

A folder holds `settings.json`, `verdicts.jsonl`, `seconds.jsonl` and the empty `.lock`. The order of the lines is planned
before the first answer. A run that was killed therefore continues after the last whole batch, and its file has the same
bytes as that of a run that was not. Times differ from run to run, so they have a file of their own, with the sha256 of each
batch, by which damage is found.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from qthink_core.artifacts.files import canonical_json, read_object, read_small, storage, write_file
from qthink_core.errors import DataError
from qthink_core.inference.earlier import difference, same
from qthink_core.inference.locks import locked

SETTINGS, VERDICTS, SECONDS = "settings.json", "verdicts.jsonl", "seconds.jsonl"
LOCK = ".lock"
COMMANDS = {"evaluate": "an evaluation", "audit": "an audit"}
FIRST = ("benchmark", "questions")
# What a run may have left, or may just be writing, before there are settings.
UNSETTLED = {LOCK, f".{SETTINGS}.tmp"}


class Key(NamedTuple):
    """The place of an answer in the plan: the system, the condition of its latents, and the question."""

    system: str
    condition: str
    id: str


class Line(NamedTuple):
    """An answer with its verdict (graders.contract.Verdict); `answer` is the whole generated text.

    `tokens` counts the generated tokens without latent steps, and `finish` is `stop` or `length`. `details` holds further
    scores of the benchmark.
    """

    system: str
    condition: str
    id: str
    verdict: str
    extracted: str | None
    gold: str
    answer: str
    tokens: int
    finish: str
    details: dict[str, bool]

    @property
    def key(self) -> Key:
        """The place of the answer in the plan."""
        return Key(self.system, self.condition, self.id)

    def as_json(self) -> bytes:
        """The line as ASCII JSON, so that model text cannot control a terminal."""
        return (json.dumps(self._asdict(), allow_nan=False) + "\n").encode()


class Record(NamedTuple):
    """What `seconds.jsonl` says about a unit: its answers, their seconds, and the sha256 of its lines."""

    answers: int
    seconds: float
    sha256: str


class VerdictFile:
    """The verdicts of a run in a folder; `plan` gives the answers of each unit, in the order of the file."""

    def __init__(self, folder: Path, plan: Mapping[str, Sequence[Key]]) -> None:
        self.folder = folder
        self.plan = plan
        self.lines: list[Line] = []
        self.missing = list(plan)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, folder: Path, settings: Mapping[str, Any], plan: Mapping[str, Sequence[Key]]) -> Iterator[Self]:
        """The verdicts in `folder`, which is made if there is none; no other process may write there meanwhile.

        Raises DataError when the folder holds other files, a run with other settings, or lines that do not fit the plan,
        and StoppedError while another process writes there.
        """
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder} is a file: name a folder with --out")
        if folder.is_dir():
            _check_ours(folder, UNSETTLED | {VERDICTS, SECONDS})  # before the lock, so that a wrong folder stays as it is
        with locked(folder / LOCK, folder):
            _check_ours(folder, UNSETTLED)
            if not (folder / SETTINGS).exists():
                write_file(folder / SETTINGS, canonical_json(settings))
            _check_settings(folder / SETTINGS, settings)
            found = cls(folder, plan)
            found._read()
            yield found

    def add(self, unit: str, lines: Sequence[Line], seconds: float) -> None:
        """Appends the next unit's answers, which took `seconds`. Raises StorageError when the disk is full."""
        assert unit == self.missing[0], unit
        assert [one.key for one in lines] == list(self.plan[unit]), unit
        content = b"".join(one.as_json() for one in lines)
        record = {"unit": unit, "answers": len(lines), "seconds": round(seconds, 3), "sha256": _sha256(content)}
        append(self.folder / SECONDS, (json.dumps(record) + "\n").encode())  # first, so that no batch lacks its digest
        append(self.folder / VERDICTS, content)
        self.lines += lines
        del self.missing[0]

    def seconds(self, prefix: str = "") -> float | None:
        """The mean seconds per answer of the units whose names begin with `prefix`; None if no time was recorded."""
        records = self._records()
        known = [records[unit] for unit in self.plan if unit in records and unit.startswith(prefix)]
        answers = sum(one.answers for one in known)
        return sum(one.seconds for one in known) / answers if answers else None

    def _records(self) -> dict[str, Record]:
        """What was recorded of each unit; a line that a kill has cut is left out, and cut off where it is the last."""
        path, found = self.folder / SECONDS, dict[str, Record]()
        raw = path.read_bytes() if path.exists() else b""
        whole = raw.rfind(b"\n") + 1
        if whole < len(raw):
            with storage(path):
                os.truncate(path, whole)
        for line in raw[:whole].splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                row = read_object(line)
                record = Record(int(row["answers"]), float(row["seconds"]), str(row["sha256"]))
                found[str(row["unit"])] = record
        return found

    def _read(self) -> None:
        """Reads the whole units, and cuts off what follows them."""
        path, records = self.folder / VERDICTS, self._records()
        raw = path.read_bytes() if path.exists() else b""
        rows, kept = raw.splitlines(keepends=True), 0
        if rows and not rows[-1].endswith(b"\n"):
            del rows[-1]
        for unit, keys in self.plan.items():
            if len(rows) < len(self.lines) + len(keys):
                break
            start = len(self.lines)
            found = [self._line(rows[start + i], start + i + 1, key) for i, key in enumerate(keys)]
            content = b"".join(rows[start : start + len(keys)])
            if unit not in records or records[unit].sha256 != _sha256(content):
                where = f"{path}, lines {start + 1} to {start + len(keys)}"
                raise DataError(f"{where} do not have the sha256 in {SECONDS}: {self._fix()}")
            self.lines += found
            kept += len(content)
            del self.missing[0]
        if not self.missing and len(rows) > len(self.lines):
            raise DataError(f"{path} has {len(rows)} lines, expected {len(self.lines)}: delete {self.folder} and run again")
        if kept < len(raw):
            with storage(path):
                os.truncate(path, kept)

    def _line(self, row: bytes, number: int, key: Key) -> Line:
        try:
            line = Line(**read_object(row.rstrip(b"\n")))
            fault = None if line.key == key else f"is about {line.key}, expected {key}"
        except (ValueError, TypeError) as error:
            fault = str(error)
        if fault is not None:
            where = f"{self.folder / VERDICTS}, line {number}"
            raise DataError(f"{where} {fault:.200}: {self._fix()}")
        return line

    def _fix(self) -> str:
        return f"delete {self.folder} and run again, or name another folder with --out"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def append(path: Path, content: bytes) -> None:
    """Appends to a file durably; raises StorageError when the disk is full."""
    with storage(path), path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _check_ours(folder: Path, expected: set[str]) -> None:
    names = {path.name for path in folder.iterdir()}
    if SETTINGS not in names and names - expected:
        raise DataError(f"{folder} holds other files and no {SETTINGS}: name another folder with --out")


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    try:
        held = read_object(read_small(path))
    except ValueError as error:
        raise DataError(f"{path} {error}: delete {path.parent}, or name another folder with --out") from None
    wanted = json.loads(canonical_json(settings))
    fix = "name another folder with --out"
    kinds = [COMMANDS.get(str(one.get("command"))) for one in (held, wanted)]
    if None not in kinds and kinds[0] != kinds[1]:
        raise DataError(f"{path.parent} holds {kinds[0]}, not {kinds[1]}: {fix}")
    # other questions can change limits as well, and are what a user has changed
    for name in sorted({*held, *wanted}, key=lambda one: (one not in FIRST, one)):
        if not same(held.get(name), wanted.get(name)):
            different = difference(name, held.get(name), wanted.get(name))
            raise DataError(f"{path.parent} holds a run with {different}: {fix}, or delete this one")
