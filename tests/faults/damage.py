"""Damage to files, and the check that a reader finds each, names the file and says what to do."""

import itertools
import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from qthink_core.artifacts.store import MANIFEST
from qthink_core.errors import DataError

Check = Callable[[], object]
HEADER = 8
# What a message says to do, and the damage itself: `no file is named` fails the test.
REMEDY = re.compile(r"run `|delete |fetch .* again|is made again")


def truncations(content: bytes) -> dict[str, bytes]:
    """The content cut at each class of length, and with one byte more; without those that change nothing."""
    cuts = {
        "no byte": 0,
        "one byte": 1,
        "a header": HEADER,
        "the middle": len(content) // 2,
        "one byte less": len(content) - 1,
    }
    found = {name: content[: max(length, 0)] for name, length in cuts.items()} | {"one byte more": content + b"\n"}
    return {name: cut for name, cut in found.items() if cut != content}


def flipped(content: bytes, draw: random.Random) -> bytes:
    """The content with one bit flipped."""
    damaged = bytearray(content)
    damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


@contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    """The file with other content and its old times, as a disk that fails leaves it."""
    before, times = path.read_bytes(), path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    yield
    path.write_bytes(before)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@contextmanager
def moved(*pairs: tuple[Path, Path]) -> Iterator[None]:
    """The files under other names; two names each for the other are a swap."""
    contents = {new: old.read_bytes() for old, new in pairs}
    before = {path: path.read_bytes() if path.exists() else None for pair in pairs for path in pair}
    for old, _ in pairs:
        old.unlink()
    for new, content in contents.items():
        new.write_bytes(content)
    yield
    for path, content in before.items():
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)


def refused(check: Check, *names: Path | str) -> None:
    """Fails unless the check raises DataError (exit code 65), names one of these files and says what to do, in one line."""
    said = None
    try:
        check()
    except DataError as error:
        said = str(error)
    assert said is not None, f"damage to {', '.join(map(str, names))} was not found"
    assert any(str(name) in said for name in names), f"{said!r} names none of {names}"
    assert REMEDY.search(said), f"{said!r} does not say what to do"
    assert "\n" not in said


def in_content(files: Sequence[Path], check: Check, flips: int, draw: random.Random) -> int:
    """Damages the content of each file in every way, `flips` times by a bit, and returns how many damages were found."""
    found = 0
    for path in files:
        content = path.read_bytes()
        damages = [*truncations(content).values(), *(flipped(content, draw) for _ in range(flips * bool(content)))]
        for damaged in damages:
            with replaced(path, damaged):
                refused(check, path)
        found += len(damages)
    check()
    return found


def in_names(files: Sequence[Path], check: Check) -> int:
    """Deletes, renames and swaps the files of one folder and adds others, and returns how many damages were found."""
    found = 0
    for path in files:
        missing = (path, f"{path.parent} is missing or holds no {MANIFEST}") if path.name == MANIFEST else (path,)
        for new in (path.with_name(f"x{path.name}"), path.with_name(path.name.upper() + "x")):
            with moved((path, new)):
                refused(check, *missing, new)
        content = path.read_bytes()
        path.unlink()
        refused(check, *missing)
        path.mkdir()
        refused(check, *missing)
        path.rmdir()
        path.write_bytes(content)
        found += 4
    for left, right in itertools.pairwise(files):
        if left.read_bytes() != right.read_bytes():
            with moved((left, right), (right, left)):
                refused(check, left, right)
            found += 1
    folder = files[0].parent
    for stranger in (folder / "stranger.parquet", folder / ".hidden", folder / "inside" / "model.safetensors"):
        stranger.parent.mkdir(exist_ok=True)
        stranger.write_bytes(b"strange")
        refused(check, stranger)
        stranger.unlink()
        found += 1
    (folder / "inside").rmdir()
    check()
    return found
