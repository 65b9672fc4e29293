"""The contract between stages: folders that are whole or absent, each with a manifest that proves it.

A stage computes *units* (a block of rollouts, a shard of hidden states, a checkpoint). Each unit is written into a work
folder outside DVC's outputs, because DVC deletes an output before its stage runs: temporary file, fsync, rename, and only
then a record with sha256 and size. A unit without a matching record does not exist and is made again. When all units are
there the output folder is built in the work folder and renamed into its place in one step.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qthink_core.errors import DataError, QThinkError, StorageError

MANIFEST = "manifest.json"
CLOSED = "closed.json"
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
# np.save on a full disk raises an OSError without errno, safetensors an exception of its own: they tell it in words only.
REFUSED_IN_WORDS = re.compile(r"No space left on device|\d+ requested and \d+ written|Disk quota exceeded|File too large")
Writer = Callable[[Path], None]


def sha256(path: Path) -> str:
    """The hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that is hashed and stored: sorted keys, no NaN, a newline at the end."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def sealed(content: Mapping[str, Any]) -> bytes:
    """A JSON object in its one spelling that carries its own sha256 as `seal`."""
    return canonical_json({**content, "seal": hashlib.sha256(canonical_json(content)).hexdigest()})


def unsealed(raw: bytes) -> dict[str, Any]:
    """The object that `sealed` wrote; raises ValueError when any byte of it is another."""
    found = json.loads(raw)
    content = {key: value for key, value in found.items() if key != "seal"} if isinstance(found, dict) else {}
    if sealed(content) != raw:
        raise ValueError("its seal is not that of its content")
    return content


def fsync_folder(folder: Path) -> None:
    """Makes the names inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def storage(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Raises StorageError, naming the path, the bytes written so far and those free, where the disk is full or refuses."""
    try:
        yield
    except Exception as error:
        refused = isinstance(error, OSError) and error.errno in REFUSALS
        if isinstance(error, QThinkError) or not (refused or REFUSED_IN_WORDS.search(str(error))):
            raise
        written = temporary.stat().st_size if temporary is not None and temporary.exists() else 0
        there = next(folder for folder in path.parents if folder.exists())
        free = shutil.disk_usage(there).free
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StorageError(
            f"{path} could not be written ({reason}; {written} bytes written, {free} free): "
            "make room or check the folder's rights, then run the same command again; finished units are kept"
        ) from error


def write_file(path: Path, write: Writer | bytes) -> None:
    """Writes `path` whole or not at all, durably; libraries may write through a callable that gets a temporary path.

    One process at a time may write a path (the stage's lock sees to it), so a torn temporary file is replaced here.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with storage(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            if isinstance(write, bytes):
                temporary.write_bytes(write)
            else:
                write(temporary)
            # safetensors leaves 0600, which a shared cache or a second user could not read.
            temporary.chmod(0o644)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.rename(path)
            fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass
class Manifest:
    """What an artifact folder says of itself.

    `place` is its folder in the repository; `inputs` maps each input folder or file to its digest; `counts` holds what was
    made and what was left out, by reason; `about` holds facts a reader needs (shapes, K, dtype). `settings` is the digest
    of parameters and inputs, without code, so that an edit that changes no output leaves every manifest, and so every later
    stage, untouched.
    """

    artifact: str
    place: str
    settings: str
    inputs: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


def digest(path: Path) -> str:
    """The identity of an input: a file's sha256; for an artifact its manifest's; for a folder of artifacts all of theirs.

    Raises DataError when the path is missing or a folder holds no artifact.
    """
    if path.is_file():
        return sha256(path)
    if (path / MANIFEST).is_file():
        return sha256(path / MANIFEST)
    inner = sorted(path.rglob(MANIFEST)) if path.is_dir() else []
    if not inner:
        raise DataError(f"{path} is missing or holds no {MANIFEST}: run `dvc repro` (or `dvc checkout --force {path}`)")
    listing = [[str(file.relative_to(path)), sha256(file)] for file in inner]
    return hashlib.sha256(canonical_json(listing)).hexdigest()


def read_manifest(folder: Path, artifact: str | None = None) -> Manifest:
    """The manifest of `folder` after every file it lists was found with the recorded size and sha256.

    Raises DataError naming the first file that is missing, damaged or not of this artifact, and the fix.
    """
    fix = f"run `dvc checkout --force {folder}`, or `dvc repro` to make it again"
    path = folder / MANIFEST
    try:
        manifest = Manifest(**unsealed(path.read_bytes()))
    except FileNotFoundError:
        raise DataError(f"{path} is missing, so {folder} is not a whole artifact: {fix}") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}): {fix}") from None
    if artifact is not None and manifest.artifact != artifact:
        raise DataError(f"{folder} holds '{manifest.artifact}' where '{artifact}' was expected: {fix}")
    for name, record in manifest.files.items():
        check_file(folder / name, record, fix)
    return manifest


def placed(folder: Path) -> str | None:
    """The place that the manifest of `folder` names; None where it is missing, damaged or another program's."""
    try:
        return Manifest(**unsealed((folder / MANIFEST).read_bytes())).place
    except (FileNotFoundError, ValueError, TypeError):
        return None


def check_file(path: Path, record: Mapping[str, Any], fix: str) -> None:
    """Raises DataError unless the file has the size and sha256 of its record."""
    if not path.is_file():
        raise DataError(f"{path} is listed in its manifest but missing: {fix}")
    size = path.stat().st_size
    if size != record["bytes"]:
        raise DataError(f"{path} has {size} bytes where its manifest says {record['bytes']}: {fix}")
    if sha256(path) != record["sha256"]:
        raise DataError(f"{path} does not have the sha256 of its manifest: {fix}")


class Work:
    """The work folder of one stage instance under one fingerprint: committed units survive any kill.

    `fingerprint` covers parameters, inputs and code; another fingerprint gets another folder and the old one goes.
    """

    def __init__(self, folder: Path, fingerprint: str, settings: str, inputs: Mapping[str, str]) -> None:
        self.folder = folder / fingerprint[:16]
        self.settings = settings
        self.inputs = dict(inputs)
        self.places: list[str] = []
        for other in folder.iterdir() if folder.is_dir() else []:
            if other.is_dir() and other != self.folder:
                shutil.rmtree(other)
        with storage(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / CLOSED).unlink(missing_ok=True)
        for torn in self.folder.glob(".*.tmp"):
            torn.unlink()
        self.resumed = any(self.folder.glob("*.unit.json"))

    def _record(self, unit: str) -> Path:
        return self.folder / f"{unit}.unit.json"

    def done(self, unit: str) -> bool:
        """Whether the unit is committed and undamaged; the record of a damaged one is dropped so that it is made again."""
        record = self._record(unit)
        if not record.is_file():
            return False
        try:
            for name, file in unsealed(record.read_bytes())["files"].items():
                check_file(self.folder / name, file, "it is made again")
        except (DataError, ValueError, FileNotFoundError):  # another rank may have dropped it just now
            record.unlink(missing_ok=True)
            return False
        return True

    def commit(self, unit: str, files: Mapping[str, Writer | bytes], counts: Mapping[str, int] | None = None) -> None:
        """Writes the unit's files and then the record that makes them count."""
        listed = {}
        for name, write in files.items():
            path = self.folder / name
            write_file(path, write)
            listed[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        write_file(self._record(unit), sealed({"files": listed, "counts": dict(counts or {})}))

    def path(self, name: str) -> Path:
        """Where a committed file of a unit lies until it is published."""
        return self.folder / name

    def scratch(self) -> Path:
        """An empty folder for files that a library writes on its own terms before they are committed."""
        return self._emptied("scratch")

    def _emptied(self, name: str) -> Path:
        folder = self.folder / name
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        return folder

    def drop(self, unit: str) -> None:
        """Forgets a unit and its files (an older checkpoint)."""
        record = self._record(unit)
        names = list(unsealed(record.read_bytes())["files"])
        record.unlink()
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def require(self, units: Collection[str], what: str, fix: str) -> None:
        """Raises DataError, with all counts of the units and the fix, where they hold 0 of what the next stage needs."""
        counts = self._counts(units)
        if not counts.get(what):
            told = ", ".join(f"{reason} {count}" for reason, count in counts.items() if count and reason != what)
            raise DataError(
                f"nothing was made that a later stage can use, {what} 0 ({told or 'nothing else either'}): {fix}"
            )

    def _counts(self, units: Iterable[str]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for unit in units:
            for reason, count in unsealed(self._record(unit).read_bytes())["counts"].items():
                counts[reason] = counts.get(reason, 0) + count
        return counts

    def publish(self, out: Path, artifact: str, units: Collection[str], about: Mapping[str, Any] | None = None) -> Manifest:
        """Makes `out` from the committed units: hard links and a manifest in a folder of their own, renamed in one step.

        The counts of the units are summed; an `out` that is in the way is moved aside first, so that none is ever half
        there. Raises QThinkError when a unit is not committed.
        """
        manifest = Manifest(artifact, str(out), self.settings, self.inputs, about=dict(about or {}))
        with storage(out):
            stage, aside = self._emptied("publish"), self._emptied("aside")
            for unit in units:
                if not self.done(unit):
                    raise QThinkError(f"unit {unit} of {out} is not committed: run the same command again")
                for name, file in unsealed(self._record(unit).read_bytes())["files"].items():
                    (stage / name).parent.mkdir(parents=True, exist_ok=True)
                    os.link(self.folder / name, stage / name)
                    manifest.files[name] = file
            manifest.counts = self._counts(units)
            write_file(stage / MANIFEST, sealed(vars(manifest)))
            out.parent.mkdir(parents=True, exist_ok=True)
            if out.exists():
                out.rename(aside / out.name)
            stage.rename(out)
            fsync_folder(out.parent)
            shutil.rmtree(aside)
        self.places.append(str(out))
        return manifest

    def close(self) -> None:
        """Marks the work as published.

        It stays until DVC has recorded the outputs: killed while it hashes them, DVC deletes them and runs the stage
        again, which then finds every unit made.
        """
        if self.places:
            write_file(self.folder / CLOSED, canonical_json(self.places))
        else:
            shutil.rmtree(self.folder)


class JoinedWork(Work):
    """The work folder that rank 0 has opened, as the other ranks see it: they may add units; rank 0 cleans and publishes."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder / fingerprint[:16]
        if not self.folder.is_dir():
            raise DataError(
                f"{self.folder}, which rank 0 opened, is not here: start all ranks in one folder that all machines see, "
                "with the same code, parameters and inputs"
            )

    def require(self, units: Collection[str], what: str, fix: str) -> None:
        """Nothing: rank 0 judges."""

    def publish(self, out: Path, artifact: str, units: Collection[str], about: Mapping[str, Any] | None = None) -> Manifest:
        """A manifest of nothing: what is said about it is not shown."""
        return Manifest(artifact, str(out), "", counts=Counter())


def sweep(works: Path, recorded: Iterable[str]) -> None:
    """Removes the closed work folders whose outputs are all `recorded` by DVC, as the inputs of a running stage are."""
    recorded = tuple(recorded)
    for closed in works.glob(f"*/*/{CLOSED}"):
        try:
            places = json.loads(closed.read_bytes())
        except FileNotFoundError:  # a stage that runs beside this one was quicker
            continue
        if all(any(Path(place).is_relative_to(one) for one in recorded) for place in places):
            shutil.rmtree(closed.parent, ignore_errors=True)


def listed(folder: Path, suffix: str = "") -> list[str]:
    """The names of an artifact's files in order, as its manifest lists them; their hashes were checked before the stage."""
    return sorted(name for name in json.loads((folder / MANIFEST).read_bytes())["files"] if name.endswith(suffix))
