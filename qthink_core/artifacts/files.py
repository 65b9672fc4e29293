"""Files: hashes, JSON in one canonical form that is read strictly, and writes that leave a file complete or absent."""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from qthink_core.errors import DataError, QThinkError, StorageError

NO_RIGHT = (errno.EROFS, errno.EACCES, errno.EPERM)
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, *NO_RIGHT)
# On a full disk, np.save raises an OSError without errno, and safetensors its own exception: only the message gives it away.
REFUSED_IN_WORDS = re.compile(r"No space left on device|\d+ requested and \d+ written|Disk quota exceeded|File too large")
# What a killed process leaves, ours or DVC's.
TEMPORARY = re.compile(r"\..*\.tmp")
TOO_LARGE = os.strerror(errno.EFBIG)
# Far above what there is: the largest tokenizers have 35 MB, and manifests much less.
MAX_JSON_BYTES = 256 << 20
Writer = Callable[[Path], None]


def sha256(path: Path) -> str:
    """The hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """The path, size and time of change of each file below a folder: equal as long as nothing is edited; [] without one."""
    found = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return [(str(path.relative_to(folder)), about.st_size, about.st_mtime_ns) for path, about in found]


def number_of(text: str) -> int:
    """A 64-bit number for a text, the same on every machine: the first eight bytes of its sha256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def canonical_json(value: Any) -> bytes:
    """The canonical bytes of a JSON value, for hashing and storing: sorted keys, no NaN, a newline at the end."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def read_small(path: Path) -> bytes:
    """The bytes of a small file of JSON, which is read whole.

    Raises ValueError, with a message as of `read_object`, where it is a folder, a pipe or a device, or too large.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("is not a regular file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_JSON_BYTES:
            raise ValueError(f"has {size:,} bytes, expected at most {MAX_JSON_BYTES:,}")
        return file.read(size)  # no more, if it grows


def read_object(content: bytes) -> dict[str, Any]:
    """The object in bytes of JSON in UTF-8, in which no field occurs twice and all numbers are finite.

    Raises ValueError otherwise. Its message continues a sentence that begins with the file: `is not JSON (...)`.
    """
    try:
        found = json.loads(content.decode(), object_pairs_hook=once, parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start + 1}, {error.reason})") from None
    except RecursionError:
        raise ValueError("is nested too deep to read") from None
    except ValueError as error:  # also integers of more than 4,300 digits
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"holds a JSON {type(found).__name__} where an object is expected")
    return found


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these fields, for `json.loads`; raises ValueError where a field occurs twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"field {name!r:.60} appears twice")
        found[name] = value
    return found


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text:.40} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def sealed(content: Mapping[str, Any]) -> bytes:
    """The canonical bytes of a JSON object with its own sha256 added as `seal`."""
    return canonical_json({**content, "seal": hashlib.sha256(canonical_json(content)).hexdigest()})


def unsealed(raw: bytes) -> dict[str, Any]:
    """The object that `sealed` wrote; raises ValueError when a byte has changed."""
    content = {key: value for key, value in read_object(raw).items() if key != "seal"}
    if sealed(content) != raw:
        raise ValueError("its seal does not match its content")
    return content


def check_file(path: Path, record: Mapping[str, Any], fix: str) -> None:
    """Raises DataError unless the file has the size and sha256 of its record."""
    if not path.is_file():
        raise DataError(f"{path} is listed in its manifest but missing: {fix}")
    size = path.stat().st_size
    if size != record["bytes"]:
        raise DataError(f"{path} has {size} bytes where its manifest says {record['bytes']}: {fix}")
    try:
        found = sha256(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): {fix}") from None
    if found != record["sha256"]:
        raise DataError(f"{path} does not have the sha256 of its manifest: {fix}")


def strangers(folder: Path, known: Collection[str]) -> Iterator[Path]:
    """The files below `folder`, sorted, whose names are not in `known`; those that .dvcignore names are left out."""
    for path in sorted(folder.rglob("*")):
        ignored = path.suffix == ".pyc" or TEMPORARY.fullmatch(path.name)
        if not ignored and (path.is_file() or path.is_symlink()) and str(path.relative_to(folder)) not in known:
            yield path


def fsync_folder(folder: Path) -> None:
    """Makes the names inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, where they are missing, so that their names survive a power cut."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        fsync_folder(one.parent)


@contextlib.contextmanager
def storage(path: Path, temporary: Path | None = None, needed: int | None = None) -> Iterator[None]:
    """A context that raises StorageError with the path and the reason when a write in it fails.

    Failures are a full disk, a quota and a file-size limit, for which the bytes needed and free are given, a read-only disk
    and missing rights. `needed` is the size of the file; where it is unknown, it is more than what was written to
    `temporary`, and not named where the writer has deleted that. Other errors pass unchanged.
    """
    try:
        yield
    except Exception as error:
        refused = isinstance(error, OSError) and error.errno in REFUSALS
        in_words = REFUSED_IN_WORDS.search(str(error))
        if isinstance(error, QThinkError) or not (refused or in_words):
            raise
        reason = in_words.group() if in_words else getattr(error, "strerror", None) or str(error)
        again = "then run the same command again; finished units are kept"
        if isinstance(error, OSError) and error.errno in NO_RIGHT:
            raise StorageError(
                f"{path} could not be written ({reason}): check the rights of its folder, or take another one, {again}"
            ) from error
        written = temporary.stat().st_size if temporary is not None and temporary.exists() else 0
        there = os.statvfs(next(folder for folder in path.parents if folder.exists()))
        free = there.f_bavail * there.f_frsize
        if needed is None and not written:
            room = f"{free} bytes free"
        else:
            room = f"{f'more than {written}' if needed is None else needed} bytes needed, {free} free"
        if there.f_files and not there.f_favail:
            room += ", but the file system can hold no further file"
        fix = "raise the limit on the size of a file (`ulimit -f`)" if TOO_LARGE in reason else "make room"
        raise StorageError(f"{path} could not be written ({reason}; {room}): {fix}, {again}") from error


def write_file(path: Path, write: Writer | bytes) -> None:
    """Writes `path` durably, completely or not at all; a callable `write` gets a temporary path to write to.

    The stage's lock allows one process at a time to write a path, so a temporary file left by a killed process is replaced.
    Raises StorageError as `storage` does.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with storage(path, temporary, len(write) if isinstance(write, bytes) else None):
            make_folder(path.parent)
            temporary.unlink(missing_ok=True)
            if isinstance(write, bytes):
                temporary.write_bytes(write)
            else:
                write(temporary)
            # safetensors writes with mode 0600, which other users of a shared cache could not read.
            temporary.chmod(0o644)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.rename(path)
            fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: Path, line: bytes) -> None:
    """Adds a line to a log, whole or not at all; several processes may do so at the same time.

    A part of a line at the end of the log, which a power cut may leave, is removed. Raises StorageError as `storage` does.
    """
    with storage(path, needed=len(line) + 1):
        make_folder(path.parent)
        with path.open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            try:
                rest = line + b"\n"
                while rest:  # a disk with little room takes a part first
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(whole)
                raise


def remove_beside(last: Path) -> None:
    """Deletes everything beside a file; another process may do the same."""
    with contextlib.suppress(FileNotFoundError):
        for path in last.parent.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path != last:
                path.unlink(missing_ok=True)
