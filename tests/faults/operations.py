"""A fault at operation 1, 2, 3 ... of a stage until it completes; after each, the next run must end in equal bytes."""

import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from faults import injection
from faults.project import Ended, Project

from qthink_core.artifacts.files import sha256, unsealed
from qthink_core.pipeline.graph import Box

STOPPED, FULL = 75, 74
# The stages that go on from finished units; the others begin again, and a training goes on from its newest checkpoint.
BY_UNITS = {"sample", "extract", "merge", "baseline", "evaluate", "probe"}
CHECKPOINT = "checkpoint-"
STOPS_WITHIN_S = 20.0


@dataclass
class Tally:
    """How often a kind of fault struck, how many of the next runs went on from finished units, and what they ended in."""

    kind: str
    struck: int = 0
    resumed: int = 0
    equal: int = 0
    seconds: float = 0.0
    cases: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Adds the strikes of another tally of this kind."""
        for name in ("struck", "resumed", "equal", "seconds", "cases"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.faults += other.faults


def units(work: Path) -> dict[str, int]:
    """The inodes of the files of committed, undamaged units: a file that is made again has another one."""
    found = {}
    for record in work.glob("*/*.unit.json"):
        try:
            files = {record.parent / name: one for name, one in unsealed(record.read_bytes())["files"].items()}
        except ValueError:  # a torn record commits nothing
            continue
        if all(path.is_file() and sha256(path) == one["sha256"] for path, one in files.items()):
            found[record.name] = record.stat().st_ino
            found |= {str(path.relative_to(record.parent)): path.stat().st_ino for path in files}
    return found


def go_on(project: Project, box: Box, tally: Tally, where: str) -> None:
    """Runs a struck box as DVC does, and compares what it made with what it made undisturbed."""
    before = units(project.work(box))
    project.remove_outs(box)
    done = project.run(box)
    after = units(project.work(box))
    made = project.tree(box)
    tally.resumed += goes_on(box, before)
    again = [name for name, inode in before.items() if box.stage in BY_UNITS and after.get(name) != inode]
    if done.code:
        tally.faults.append(f"{where}: the next run ended with {done.code}: {done.said[-600:]}")
    elif made != project.made[box]:
        other = sorted(name for name in {*made, *project.made[box]} if made.get(name) != project.made[box].get(name))
        tally.faults.append(f"{where}: other bytes in {', '.join(other)}")
    elif again:
        tally.faults.append(f"{where}: finished units were made again: {', '.join(again)}")
    elif torn := [path.name for path in project.root.rglob("*.tmp") if ".dvc" not in path.parts]:
        tally.faults.append(f"{where}: left behind {', '.join(torn)}")
    else:
        tally.equal += 1


def goes_on(box: Box, before: Iterable[str]) -> bool:
    """Whether a run of the box finds units that it need not make again."""
    return any(box.stage in BY_UNITS or name.startswith(CHECKPOINT) for name in before)


def check_outs(project: Project, box: Box, tally: Tally, where: str) -> None:
    """Whatever passes the check of its manifest has the undisturbed bytes."""
    for out in project.outs[box]:
        manifest = project.root / out / "manifest.json"
        if manifest.is_file():
            inside = {name: one for name, one in project.tree(box).items() if Path(name).is_relative_to(out)}
            if inside != {name: one for name, one in project.made[box].items() if Path(name).is_relative_to(out)}:
                tally.faults.append(f"{where}: {out} is there and incomplete")


def each(box: Box, kind: str, strike: Callable[[int], bool], start: int, stride: int) -> Iterator[int]:
    """Operation `start`, `start + stride` ... as long as `strike` says that the box came to it."""
    number = start
    while strike(number):
        yield number
        number += stride


def kills(project: Project, box: Box, start: int = 1, stride: int = 1) -> Tally:
    """SIGKILL at each operation of an undisturbed run; a file that is being written is torn."""
    tally, began = Tally("SIGKILL at operation 1, 2, 3 ...", cases=1), time.monotonic()

    def strike(number: int) -> bool:
        project.reset(box)
        ended = project.run(box, injection.kill_at(number, torn=number))
        if ended.code not in (0, -signal.SIGKILL):
            tally.faults.append(f"{box}: operation {number}: ended with {ended.code}: {ended.said[-600:]}")
        return ended.code == -signal.SIGKILL

    for number in each(box, tally.kind, strike, start, stride):
        tally.struck += 1
        check_outs(project, box, tally, f"{box}: killed at operation {number}")
        go_on(project, box, tally, f"{box}: killed at operation {number}")
    tally.seconds = time.monotonic() - began
    return tally


def kills_in_one_run(project: Project, box: Box, stride: int) -> Tally:
    """One run, killed at its operation 1, going on and killed at operation 1 + stride of the next process, and so forth."""
    tally, began, number = Tally("SIGKILL again and again in one run of a stage", cases=1), time.monotonic(), 1
    project.reset(box)
    while True:
        had = units(project.work(box))
        project.remove_outs(box)
        ended = project.run(box, injection.kill_at(number, torn=number))
        if ended.code == 0:
            break
        if ended.code != -signal.SIGKILL:
            tally.faults.append(f"{box}: operation {number} of a run: ended with {ended.code}: {ended.said[-600:]}")
            break
        tally.struck += 1
        tally.resumed += goes_on(box, had)
        number += stride
    if project.tree(box) == project.made[box]:
        tally.equal = tally.struck
    else:
        tally.faults.append(f"{box}: other bytes after {tally.struck} kills in one run")
    tally.seconds = time.monotonic() - began
    return tally


def stops(project: Project, box: Box, start: int = 1, stride: int = 1) -> Tally:
    """SIGTERM or SIGINT at each operation: exit code 75 in time, one line that says how to go on."""
    tally, began = Tally("SIGTERM or Ctrl-C at operation 1, 2, 3 ...", cases=1), time.monotonic()
    sent = project.root.parent / "sent"

    def strike(number: int) -> bool:
        project.reset(box)
        sent.unlink(missing_ok=True)
        which = (signal.SIGTERM, signal.SIGINT)[number // stride % 2]
        ended = project.run(box, injection.signal_at(number, which, sent))
        if sent.exists():
            took = time.time() - sent.stat().st_mtime
            check_stopped(box, ended, which, took, tally, f"{box}: {which.name} at operation {number} ({sent.read_text()})")
        return sent.exists()

    for number in each(box, tally.kind, strike, start, stride):
        tally.struck += 1
        go_on(project, box, tally, f"{box}: stopped at operation {number}")
    tally.seconds = time.monotonic() - began
    return tally


def check_stopped(box: Box, ended: Ended, which: signal.Signals, took: float, tally: Tally, where: str) -> None:
    """The exit code and the line of a box that was asked to stop, and the seconds that it took from then on."""
    line = f"{box}: stopped by {which.name}; finished units are kept, `dvc repro` continues from there\n"
    if ended.code != STOPPED or not ended.said.endswith(line) or "Traceback" in ended.said:
        tally.faults.append(f"{where}: ended with {ended.code}: {ended.said[-600:]}")
    if took > STOPS_WITHIN_S:
        tally.faults.append(f"{where}: stopped after {took:.0f} s")


def full_disks(project: Project, box: Box, start: int = 1, stride: int = 1) -> Tally:
    """ENOSPC from each operation on that needs room: exit code 74, one line, and finished units stay."""
    tally, began = Tally("disk full from operation 1, 2, 3 ... on", cases=1), time.monotonic()
    refused = project.root.parent / "refused"

    def strike(number: int) -> bool:
        project.reset(box)
        refused.unlink(missing_ok=True)
        ended = project.run(box, injection.refuse_from(number, refused))
        if not refused.exists():
            return False
        check_full(box, ended, tally, f"{box}: no room at operation {number} ({refused.read_text()})")
        return True

    for number in each(box, tally.kind, strike, start, stride):
        tally.struck += 1
        go_on(project, box, tally, f"{box}: no room at operation {number}")
    tally.seconds = time.monotonic() - began
    return tally


ROOM = r"\d+ bytes (needed, \d+ free|free)"
FULL_LINE = re.compile(rf"\S+: \S+ could not be written \(.*; .*{ROOM}\): (make room|raise the limit).*\n")


def check_full(box: Box, ended: Ended, tally: Tally, where: str) -> None:
    """The exit code and the line of a box whose disk was full."""
    if ended.code != FULL or not FULL_LINE.search(ended.said) or "Traceback" in ended.said:
        tally.faults.append(f"{where}: ended with {ended.code}: {ended.said[-1200:]}")
