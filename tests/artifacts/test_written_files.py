"""One file, written whole or not at all: on a full disk, under any format, in one spelling of JSON."""

import errno
import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from test_artifacts import contents, in_two_pieces

from qthink_core.artifacts.files import append_line, canonical_json, sealed, unsealed, write_file
from qthink_core.artifacts.store import Work
from qthink_core.errors import StorageError


def save_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, numbers(), allow_pickle=False)


def save_parquet(path: Path) -> None:
    pq.write_table(pa.table({"x": numbers(), "name": [f"row {i}" for i in range(20_000)]}), path)


def save_safetensors(path: Path) -> None:
    safetensors.numpy.save_file({"b": numbers(), "a": numbers()}, path, metadata={"format": "pt"})


def numbers() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(20_000)


# Two libraries delete what they have written, and so nothing tells how much more was needed.
DELETED = r"(No space left on device|File too large); \d+ bytes free"
LEFT = r".*; .*\d+ bytes needed, \d+ free"
ROOM = {"bytes": LEFT, "npy": LEFT, "parquet": DELETED, "safetensors": DELETED}
WRITERS = {"bytes": numbers().tobytes(), "npy": save_npy, "parquet": save_parquet, "safetensors": save_safetensors}
SMALL = 96 * 1024  # bytes; each writer wants more than 160,000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / ".work"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a disk of 96 KiB needs the right to mount")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_named_and_committed_units_stay(small_disk: Path, kind: str) -> None:
    work = Work(small_disk / "stage", "f" * 64, "settings", {})
    work.commit("first", {"first": b"1" * 100})
    with pytest.raises(StorageError, match=rf"\.work/stage/f{{16}}/second could not be written \({ROOM[kind]}\)") as said:
        work.commit("second", {"second": WRITERS[kind]})
    assert said.value.exit_code == 74
    assert "\n" not in str(said.value)
    assert "make room" in str(said.value)
    again = Work(small_disk / "stage", "f" * 64, "settings", {})
    assert (again.done("first"), again.done("second")) == (True, False)
    assert not list(small_disk.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    again.commit("second", {"second": WRITERS[kind]})
    assert again.done("second")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_the_system_refuses_to_let_grow_is_named(tmp_path: Path, kind: str) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, limits[1]))
    try:
        fix = "(raise the limit .*`ulimit -f`|make room)"
        with pytest.raises(StorageError, match=rf"out could not be written \({ROOM[kind]}\): {fix}"):
            write_file(tmp_path / "out", WRITERS[kind])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "expected", "other"),
    [
        (
            errno.EACCES,
            r"\(Permission denied\): check the rights of its folder, or take another one, then",
            "make room|bytes",
        ),
        (errno.EPERM, r"\(Operation not permitted\): check the rights", "make room|bytes"),
        (errno.EROFS, r"\(Read-only file system\): check the rights", "make room|bytes"),
        (errno.ENOSPC, r"\(No space left on device; \d+ bytes free\): make room, then", "rights"),
        (errno.EDQUOT, r"\(Disk quota exceeded; \d+ bytes free\): make room, then", "rights"),
    ],
)
def test_room_is_asked_for_where_room_is_missing_and_rights_where_rights_are(
    tmp_path: Path, number: int, expected: str, other: str
) -> None:
    def write(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(StorageError, match=rf"out could not be written {expected}") as said:
        write_file(tmp_path / "out", write)
    assert not re.search(other, str(said.value))


def test_a_disk_that_is_full_of_folders_is_named_by_the_publication(small_disk: Path) -> None:
    work = Work(small_disk / "stage", "f" * 64, "settings", {})
    work.commit("unit", {"a": b"a"})
    subprocess.run(["mount", "-o", f"remount,nr_inodes={len(list(small_disk.rglob('*'))) + 2}", small_disk], check=True)
    with pytest.raises(StorageError, match="could not be written"):
        work.publish(small_disk / "out", "things", ["unit"])
    assert not (small_disk / "out").exists()
    assert work.done("unit")


def test_an_error_of_a_writer_that_is_no_full_disk_is_not_taken_for_one(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError, match="a defect"):
        write_file(tmp_path / "out", write)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_replaced_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path) -> None:
    write_file(tmp_path / "out", b"old")
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "out", in_two_pieces(b"newer", lambda: signal.raise_signal(signal.SIGINT)))
    assert contents(tmp_path) == {"out": b"old"}
    write_file(tmp_path / "out", b"newer")
    assert contents(tmp_path) == {"out": b"newer"}


@pytest.mark.parametrize("torn", [b"", b'{"b', b"\0" * 40])
def test_a_line_is_added_to_a_log_behind_whole_lines_alone(tmp_path: Path, torn: bytes) -> None:
    log = tmp_path / "logs" / "runs"
    append_line(log, b"first")
    with log.open("ab") as file:  # what a power cut leaves
        file.write(torn)
    append_line(log, b"second")
    assert log.read_bytes() == b"first\nsecond\n"


def test_a_line_for_which_the_disk_has_no_room_leaves_the_log_as_it_was(small_disk: Path) -> None:
    log = small_disk / "runs"
    append_line(log, b"first")
    with pytest.raises(StorageError, match=rf"runs could not be written \(.*; {2 * SMALL + 1} bytes needed, \d+ free\)"):
        append_line(log, b"x" * 2 * SMALL)
    assert log.read_bytes() == b"first\n"


SAVE_ALL = """
import sys
from pathlib import Path
from test_written_files import WRITERS
from qthink_core.artifacts import hidden_states, rollouts
from qthink_core.artifacts.files import write_file
from qthink_core.artifacts.pairs import Pair

rows = [rollouts.Rollout([i, 2], "text", "stop", problem_id="p", rollout=i) for i in range(3)]
read = [hidden_states.Source("p", row.rollout, 2) for row in rows]
shard = hidden_states.shard("block", read, WRITERS_STATES, [Pair(6, "even")])
writers = {**WRITERS, "rollouts": rollouts.writer(rows), **shard}
for name, write in writers.items():
    write_file(Path(sys.argv[1]) / (name + sys.argv[2]), write)
""".replace("WRITERS_STATES", "__import__('numpy').ones((3, 6, 4), 'float32')")


@pytest.mark.slow
def test_every_format_gives_the_same_bytes_in_another_process_under_another_name(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        arguments = [sys.executable, "-c", SAVE_ALL, str(tmp_path / seed), f".{seed}"]
        path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        subprocess.run(arguments, env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": path}, check=True)
    first, second = ([*contents(tmp_path / seed).values()] for seed in ("1", "2"))
    assert first == second
    assert len(first) == len(WRITERS) + 3
    # safetensors would leave 0600, which neither a second user nor a shared cache can read
    assert {file.stat().st_mode & 0o777 for file in tmp_path.glob("*/*")} == {0o644}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('aé\n"\\{}☃'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("abcdef_", min_size=1, max_size=4), JSON, max_size=5)


@pytest.mark.slow
@settings(deadline=None)
@given(OBJECTS)
def test_the_order_of_keys_changes_no_byte(value: dict[str, Any]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value


@pytest.mark.slow
@settings(deadline=None)
@given(OBJECTS, st.data())
def test_a_sealed_object_comes_back_and_with_any_other_byte_it_is_refused(
    value: dict[str, Any], data: st.DataObject
) -> None:
    raw = sealed(value)
    assert unsealed(raw) == value
    at = data.draw(st.integers(0, len(raw) - 1))
    other = data.draw(st.integers(1, 255))
    changed = raw[:at] + bytes([raw[at] ^ other]) + raw[at + 1 :]
    for wrong in (changed, raw[:at], raw + b"\n", raw.replace(b"\n", b"\r\n")):
        with pytest.raises(ValueError, match=r"."):
            unsealed(wrong)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_neither_nan_nor_infinity_has_a_spelling(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"losses": [1.0, {"cross_entropy": number}]})
