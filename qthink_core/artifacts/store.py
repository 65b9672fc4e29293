"""The contract between stages: artifact folders that are complete or absent, each with a manifest that proves it.

A stage computes *units* (a block of rollouts, a shard of hidden states, a checkpoint). DVC deletes an output before its
stage runs, so units are written into a work folder outside DVC's outputs. Each file goes through a temporary file, fsync
and rename; after the files of a unit comes its record, with their sizes and sha256. A unit without a matching record does
not count and is made again. When all units are committed, the output folder is built in the work folder and renamed into
its place in one step.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qthink_core.artifacts.files import Writer, canonical_json, fsync_folder, sealed, sha256, storage, unsealed, write_file
from qthink_core.errors import DataError, QThinkError

MANIFEST = "manifest.json"
CLOSED = "closed.json"
MAIN = ""  # stands for the questions of a task itself where others have the name of their test set


@dataclass
class Manifest:
    """The manifest of an artifact folder.

    `place` is its folder in the repository. `inputs` maps each input folder or file to its digest. `counts` has the numbers
    of what was made and what was left out, by reason. `about` has facts that a reader needs (shapes, K, dtype). `settings`
    is the digest of parameters and inputs, but not of the code: an edit that changes no output then changes no manifest, and
    no later stage runs again.
    """

    artifact: str
    place: str
    settings: str
    inputs: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


def digest(path: Path) -> str:
    """The digest of an input: the sha256 of a file, of an artifact's manifest, or of all manifests in a folder.

    Raises DataError when the path is missing, or is a folder without an artifact.
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
    """The manifest of `folder`, after a check that every listed file has the recorded size and sha256.

    Raises DataError, with the fix, naming the first file that is missing or damaged, or an artifact of another kind.
    """
    fix = f"run `dvc checkout --force {folder}`, or `dvc repro` to make it again"
    path = folder / MANIFEST
    try:
        manifest = Manifest(**unsealed(path.read_bytes()))
    except FileNotFoundError:
        raise DataError(f"{path} is missing, so {folder} is not a complete artifact: {fix}") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}): {fix}") from None
    if artifact is not None and manifest.artifact != artifact:
        raise DataError(f"{folder} holds '{manifest.artifact}' where '{artifact}' was expected: {fix}")
    for name, record in manifest.files.items():
        check_file(folder / name, record, fix)
    return manifest


def placed(folder: Path) -> str | None:
    """The `place` in the manifest of `folder`; None if the manifest is missing, damaged or from another program."""
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
    """The work folder of one box under one fingerprint: committed units survive a kill.

    `fingerprint` covers parameters, inputs and code. Work under another fingerprint gets a new folder, and the old one is
    deleted.
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
        """Whether the unit is committed and undamaged; the record of a damaged unit is deleted, so that it is made again."""
        record = self._record(unit)
        if not record.is_file():
            return False
        try:
            for name, file in unsealed(record.read_bytes())["files"].items():
                check_file(self.folder / name, file, "it is made again")
        except (DataError, ValueError, FileNotFoundError):  # another rank may have deleted it just now
            record.unlink(missing_ok=True)
            return False
        return True

    def commit(self, unit: str, files: Mapping[str, Writer | bytes], counts: Mapping[str, int] | None = None) -> None:
        """Writes the unit's files, and then its record, which commits the unit."""
        listed = {}
        for name, write in files.items():
            path = self.folder / name
            write_file(path, write)
            listed[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        write_file(self._record(unit), sealed({"files": listed, "counts": dict(counts or {})}))

    def path(self, name: str) -> Path:
        """The path of a committed file until it is published."""
        return self.folder / name

    def scratch(self) -> Path:
        """An empty folder, for libraries that write files themselves before these are committed."""
        return self._emptied("scratch")

    def _emptied(self, name: str) -> Path:
        folder = self.folder / name
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        return folder

    def drop(self, unit: str) -> None:
        """Deletes a unit and its files (an older checkpoint)."""
        record = self._record(unit)
        names = list(unsealed(record.read_bytes())["files"])
        record.unlink()
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def require(self, units: Collection[str], what: str, fix: str) -> None:
        """Raises DataError, with all counts and the fix, when the count of `what` over all units is 0."""
        counts = self._counts(units)
        if not counts.get(what):
            others = ", ".join(f"{reason} {count}" for reason, count in counts.items() if count and reason != what)
            raise DataError(
                f"nothing was made that a later stage can use, {what} 0 ({others or 'nothing else either'}): {fix}"
            )

    def _counts(self, units: Iterable[str]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for unit in units:
            for reason, count in unsealed(self._record(unit).read_bytes())["counts"].items():
                counts[reason] = counts.get(reason, 0) + count
        return counts

    def publish(self, out: Path, artifact: str, units: Collection[str], about: Mapping[str, Any] | None = None) -> Manifest:
        """The manifest of the folder `out`, after making that folder from the committed units.

        A new folder gets hard links to the units' files and the manifest, and is renamed to `out` in one step. An older
        `out` is moved aside first, so `out` is never incomplete. The counts of the units are summed. Raises QThinkError when
        a unit is not committed.
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
        """Marks the work as published, or deletes the work folder if nothing was published.

        A work folder is kept until DVC has recorded the outputs. If DVC is killed while it hashes them, its next run deletes
        them and runs the stage again, which then finds all units committed.
        """
        if self.places:
            write_file(self.folder / CLOSED, canonical_json(self.places))
        else:
            shutil.rmtree(self.folder)


class JoinedWork(Work):
    """The work folder that rank 0 has opened, for the other ranks: they may commit units; rank 0 checks and publishes."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder / fingerprint[:16]
        if not self.folder.is_dir():
            raise DataError(
                f"{self.folder}, which rank 0 opened, is missing here: start all ranks in one folder that all machines "
                "share, with the same code, parameters and inputs"
            )

    def require(self, units: Collection[str], what: str, fix: str) -> None:
        """Does nothing, because rank 0 checks."""

    def publish(self, out: Path, artifact: str, units: Collection[str], about: Mapping[str, Any] | None = None) -> Manifest:
        """An empty manifest, because rank 0 publishes and shows the real one."""
        return Manifest(artifact, str(out), "", counts=Counter())


def sweep(works: Path, recorded: Iterable[str]) -> None:
    """Deletes the closed work folders whose outputs are all in `recorded`, the outputs that DVC has recorded.

    The inputs of a running stage are examples of such outputs.
    """
    recorded = tuple(recorded)
    for closed in works.glob(f"*/*/{CLOSED}"):
        try:
            places = json.loads(closed.read_bytes())
        except FileNotFoundError:  # another running stage has deleted it
            continue
        if all(any(Path(place).is_relative_to(one) for one in recorded) for place in places):
            shutil.rmtree(closed.parent, ignore_errors=True)


def listed(folder: Path, suffix: str = "") -> list[str]:
    """The sorted names of an artifact's files, from its manifest; their hashes were checked before the stage began."""
    return sorted(name for name in json.loads((folder / MANIFEST).read_bytes())["files"] if name.endswith(suffix))


def of_set(test_set: str, name: str) -> str:
    """The name of a unit or file of a test set, such as `svamp.test`; MAIN leaves a name as it is."""
    return f"{test_set}.{name}" if test_set else name


def set_of(name: str) -> str:
    """The test set of a name without suffix that `of_set` has made; MAIN where there is none."""
    return name.rpartition(".")[0]
