"""Power loss: what a disk may hold when the power goes at an operation, replayed from a recording of a stage.

A file keeps what was synced with fsync; later bytes may be lost, torn or zeros. A folder keeps the names that it had when it
was synced; each later name may be there or not. Both are what POSIX allows, and more than most file systems lose.
"""

import hashlib
import os
import pickle
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import injection
from faults.operations import Tally, check_outs, go_on, goes_on, units
from faults.project import Project

from qthink_core.artifacts import store
from qthink_core.errors import DataError
from qthink_core.pipeline.graph import Box
from qthink_core.planning import calibration

PLACES = (".work", "artifacts", "models", "results", "logs")
TOP = -1  # stands for the folder of the project
# `strict`: only what was synced. `empty`, `torn`: every name, but of data that was not synced nothing or a part. `mixed`:
# each name and each file by chance, zeros among them.
MODES = ("strict", "empty", "torn", "mixed")


@dataclass
class Disk:
    """The names in each folder and the content of each file, by inode; a content is its sha256."""

    folders: dict[int, dict[str, int]] = field(default_factory=dict)
    files: dict[int, str] = field(default_factory=dict)

    def copy(self) -> "Disk":
        """A copy that later changes leave alone."""
        return Disk({one: dict(names) for one, names in self.folders.items()}, dict(self.files))


@dataclass
class Moment:
    """The state before an operation: what every process sees, what is durable, and the units that were committed."""

    what: str
    seen: Disk
    durable: Disk
    committed: frozenset[str]


class _Recorder:
    """Follows the disk in the recorded process. It keeps each inode open, so that none is used twice."""

    def __init__(self, trace: Path, box: Box) -> None:
        self.trace, self.work = trace, f".work/{box}"
        self.known: dict[int, tuple[int, tuple[int, int], str]] = {}
        self.committed: set[str] = set()
        self.seen = self.scan()
        self.durable = self.seen.copy()

    def scan(self) -> Disk:
        disk = Disk({TOP: {}})
        for place in PLACES:
            if os.path.isdir(place):
                disk.folders[TOP][place] = self._folder(place, disk)
        return disk

    def _folder(self, path: str, disk: Disk) -> int:
        number = self._held(path)
        names: dict[str, int] = {}
        for entry in os.scandir(path):
            inner = entry.is_dir(follow_symlinks=False)
            names[entry.name] = self._folder(entry.path, disk) if inner else self._file(entry.path, disk)
        disk.folders[number] = names
        return number

    def _file(self, path: str, disk: Disk) -> int:
        number = self._held(path)
        handle, mark, content = self.known[number]
        about = os.fstat(handle)
        now = (about.st_size, about.st_mtime_ns)
        if now != mark:
            text = os.pread(handle, about.st_size, 0)
            content = hashlib.sha256(text).hexdigest()
            (self.trace / content).write_bytes(text)
            self.known[number] = handle, now, content
        disk.files[number] = content
        return number

    def _held(self, path: str) -> int:
        number = os.stat(path).st_ino
        if number not in self.known:
            self.known[number] = os.open(path, os.O_RDONLY), (-1, -1), ""
        return number

    def look(self) -> None:
        """Takes in the present state; a folder that was never synced has no lasting name in it."""
        self.seen = self.scan()
        for number in self.seen.folders:
            self.durable.folders.setdefault(number, {})

    def before(self, number: int, event: str, path: str) -> None:
        self.look()
        moment = Moment(f"{event} {path}", self.seen, self.durable.copy(), frozenset(self.committed))
        (self.trace / f"{number:05d}.moment").write_bytes(pickle.dumps(moment))

    def synced(self, handle: int) -> None:
        number = os.fstat(handle).st_ino
        self.look()
        for now, lasting in ((self.seen.folders, self.durable.folders), (self.seen.files, self.durable.files)):
            if number in now:
                lasting[number] = now[number] if isinstance(now[number], str) else dict(now[number])


def record(trace: Path, box: Box) -> Callable[[], None]:
    """Records all states of the disk before each operation of a box into a folder."""

    def begin() -> None:
        recorder = _Recorder(trace, box)
        injection.watch(recorder.before)
        fsync, commit, drop = os.fsync, store.Work.commit, store.Work.drop

        def synced(handle: int) -> None:
            fsync(handle)
            recorder.synced(handle)

        def committed(self: store.Work, unit: str, *arguments: Any, **named: Any) -> None:
            commit(self, unit, *arguments, **named)
            recorder.committed.add(f"{unit}.unit.json")

        def dropped(self: store.Work, unit: str) -> None:
            recorder.committed.discard(f"{unit}.unit.json")
            drop(self, unit)

        os.fsync = synced
        store.Work.commit, store.Work.drop = committed, dropped  # type: ignore[method-assign]

    return begin


def moments(trace: Path) -> Iterator[Moment]:
    """The recorded states, in order."""
    for file in sorted(trace.glob("*.moment")):
        yield pickle.loads(file.read_bytes())  # noqa: S301 - this process's own fork wrote it


def after_loss(moment: Moment, mode: str, chance: random.Random, contents: Path) -> dict[str, bytes | None]:
    """The content of each path that the disk may hold after the power was lost; None is a folder."""
    found: dict[str, bytes | None] = {}

    def walk(number: int, path: str) -> None:
        for name, inner in names(moment, number, mode, chance).items():
            at = f"{path}/{name}" if path else name
            if inner in moment.seen.folders or inner in moment.durable.folders:
                found[at] = None
                walk(inner, at)
            else:
                found[at] = content(moment, inner, mode, chance, contents)

    walk(TOP, "")
    return found


def names(moment: Moment, folder: int, mode: str, chance: random.Random) -> Mapping[str, int]:
    """The names in a folder after the loss."""
    now, lasting = moment.seen.folders.get(folder, {}), moment.durable.folders.get(folder, {})
    if folder == TOP or mode in ("empty", "torn"):
        return now
    if mode == "strict":
        return lasting
    picked = {name: chance.choice((now, lasting)).get(name) for name in sorted({*now, *lasting})}
    return {name: inner for name, inner in picked.items() if inner is not None}


def content(moment: Moment, file: int, mode: str, chance: random.Random, contents: Path) -> bytes:
    """The content of a file after the loss."""
    now, lasting = moment.seen.files.get(file), moment.durable.files.get(file)
    kept = (contents / lasting).read_bytes() if lasting else b""
    if now is None or now == lasting or mode == "strict":
        return kept
    full = (contents / now).read_bytes()
    if mode == "empty":
        return kept
    parts = [full[: max(len(kept), chance.randint(0, len(full)))]]
    if mode == "mixed":
        parts += [full, kept, kept.ljust(len(full), b"\0")]
    return chance.choice(parts)


def put(project: Project, box: Box, found: Mapping[str, bytes | None]) -> None:
    """Makes the box's own places as the disk has them after the loss; its inputs were durable before."""
    project.reset(box)
    own = (f".work/{box}/", f".work/{box}.lock", "logs/", *(f"{out}" for out in project.outs[box]))
    for path, text in found.items():
        if f"{path}/".startswith(own):
            place = project.root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir(exist_ok=True) if text is None else place.write_bytes(text)


def losses(project: Project, box: Box, start: int = 1, stride: int = 1, seed: int = 0) -> Tally:
    """The power lost at each operation: strictly, and in one of the other modes in turn."""
    tally, began = Tally("power lost at operation 1, 2, 3 ...", cases=1), time.monotonic()
    trace = project.root.parent / "trace"
    shutil.rmtree(trace, ignore_errors=True)
    trace.mkdir()
    project.reset(box)
    ended = project.run(box, record(trace, box))
    if ended.code or project.tree(box) != project.made[box]:
        tally.faults.append(f"{box}: the recorded run ended with {ended.code}: {ended.said[-600:]}")
    for number, moment in enumerate(moments(trace), 1):
        if (number - start) % stride:
            continue
        for mode in (MODES[0], MODES[1 + (number // stride) % 3]):
            where = f"{box}: power lost ({mode}) before operation {number} ({moment.what})"
            put(project, box, after_loss(moment, mode, random.Random(f"{seed} {box} {number} {mode}"), trace))
            tally.struck += 1
            check_outs_after_loss(project, box, tally, where)
            lost = {one for one in moment.committed if goes_on(box, [one]) and one not in units(project.work(box))}
            if lost:
                tally.faults.append(f"{where}: lost the committed {', '.join(sorted(lost))}")
            go_on(project, box, tally, where)
            try:
                list(calibration.entries(project.root / calibration.LOG))
            except DataError as error:
                tally.faults.append(f"{where}: {error}")
    tally.seconds = time.monotonic() - began
    shutil.rmtree(trace)
    return tally


def check_outs_after_loss(project: Project, box: Box, tally: Tally, where: str) -> None:
    """An output of which bytes were lost is refused by its reader."""
    for out in project.outs[box]:
        try:
            store.read_manifest(project.root / out)
        except DataError:
            continue
        check_outs(project, box, tally, where)
