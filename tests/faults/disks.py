"""Disks that are really full, at random bytes: a limit on the size of a file, and a small tmpfs where one can be mounted."""

import contextlib
import os
import random
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.operations import Tally, check_full, go_on
from faults.project import Project

from qthink_core.pipeline.graph import Box

TMPFS_BYTES = 256 * 2**20


def limited(size: int) -> Callable[[], None]:
    """Lets no file of the process grow beyond a size; the writer then fails with EFBIG after so many bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextlib.contextmanager
def tmpfs(folder: Path) -> Iterator[bool]:
    """Mounts a tmpfs on a folder for the context; False where this user may not."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def unmount(folder: Path) -> None:
    """Unmounts what a process that was stopped has left mounted in a folder."""
    for path in folder.glob("*"):
        if path.is_mount():
            subprocess.run(["umount", "--lazy", str(path)], check=True)


def limits(project: Project, box: Box, cases: int, seed: int) -> Tally:
    """A file-size limit at random bytes, up to the largest file that the box writes."""
    tally, began = Tally("file-size limit at random bytes", cases=1), time.monotonic()
    chance = random.Random(f"{seed} {box}")
    largest = max((project.root / name).stat().st_size for name in project.made[box])
    for _ in range(cases):
        size = chance.randrange(largest)
        project.reset(box)
        ended = project.run(box, limited(size))
        where = f"{box}: no file over {size} bytes"
        if ended.code == 0:  # a stage may write less than its largest output at once
            continue
        check_full(box, ended, tally, where)
        tally.struck += 1
        go_on(project, box, tally, where)
    tally.seconds = time.monotonic() - began
    return tally


def full(project: Project, box: Box, cases: int, seed: int) -> Tally:
    """A tmpfs, which the project is on, with random room up to what the box needs."""
    tally, began = Tally("full tmpfs at random bytes", cases=1), time.monotonic()
    chance, filler = random.Random(f"{seed} {box} tmpfs"), project.root.parent / "filler"
    project.run(box)  # which removes the work folders of earlier boxes
    project.reset(box)
    before = free(project.root)
    project.run(box)
    needed = before - free(project.root)
    for _ in range(cases):
        project.reset(box)
        room = chance.randrange(needed)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free(project.root) - room)
        ended = project.run(box)
        filler.unlink()
        where = f"{box}: {room} bytes of room"
        if ended.code == 0:
            continue
        check_full(box, ended, tally, where)
        tally.struck += 1
        go_on(project, box, tally, where)
    tally.seconds = time.monotonic() - began
    return tally


def free(folder: Path) -> int:
    """The bytes that can still be written."""
    return shutil.disk_usage(folder).free
