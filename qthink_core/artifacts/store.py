"""The contract between stages: artifact folders that are complete or absent, each with a manifest that proves it.

A stage computes *units* (a block of rollouts, a shard of hidden states, a checkpoint). DVC deletes an output before its
stage runs, so units are written into a work folder outside DVC's outputs. Each file goes through a temporary file, fsync
and rename; after the files of a unit comes its record, with their sizes and sha256. A unit without a matching record does
not count and is made again. When all units are committed, the output folder is built in the work folder and renamed into
its place in one step.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qthink_core.artifacts.files import (
    Writer,
    canonical_json,
    check_file,
    fsync_folder,
    make_folder,
    read_small,
    remove_beside,
    sealed,
    sha256,
    storage,
    strangers,
    unsealed,
    write_file,
)
from qthink_core.errors import DataError, printable

MANIFEST = "manifest.json"
CLOSED = "closed.json"
MAIN = ""  # stands for the questions of a task itself where others have the name of their test set


@dataclass
class Manifest:
    """The manifest of an artifact folder.

    `place` is its folder in the repository. `inputs` maps each input folder or file to its digest. `counts` has the numbers
    of what was made and what was left out, by reason, and `units` the files and the counts of each unit, by name. `about`
    has facts that a reader needs (shapes, K, dtype). `settings` is the digest of parameters and inputs, but not of the code:
    an edit that changes no output then changes no manifest, and no later stage runs again.
    """

    artifact: str
    place: str
    settings: str
    inputs: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    units: dict[str, dict[str, Any]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


def digest(path: Path) -> str:
    """The digest of an input: the sha256 of a file, of an artifact's manifest, or of all manifests in a folder.

    Raises DataError when the path is missing, or is a folder without an artifact.
    """
    if path.is_file():
        return sha256(path)
    if (path / MANIFEST).is_file():
        return sha256(path / MANIFEST)
    inner = sorted(file for file in path.rglob(MANIFEST) if file.is_file())
    if not inner:
        raise DataError(f"{path} is missing or holds no {MANIFEST}: run `dvc repro`")
    listing = [[str(file.relative_to(path)), sha256(file)] for file in inner]
    return hashlib.sha256(canonical_json(listing)).hexdigest()


def read_manifest(folder: Path, artifact: str | None = None) -> Manifest:
    """The manifest of `folder`, after a check that the folder holds the listed files, undamaged, and no others.

    Raises DataError, with the fix, naming the first file that is missing, damaged or not listed, or an artifact of another
    kind.
    """
    manifest = manifest_of(folder)
    if artifact is not None and manifest.artifact != artifact:
        raise DataError(f"{folder} holds '{manifest.artifact}' where '{artifact}' was expected: {fix(folder)}")
    for name, record in manifest.files.items():
        check_file(folder / name, record, fix(folder))
    for path in strangers(folder, {MANIFEST, *manifest.files}):
        raise DataError(f"{printable(str(path))} is not a file of the artifact in {folder}: delete it")
    return manifest


def manifest_of(folder: Path) -> Manifest:
    """The manifest of `folder`, after a check of its seal; the files are not checked.

    Raises DataError, with the fix, when it is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        found = unsealed(read_small(path))
        if not isinstance(found.get("files"), dict) or not all(_is_record(*item) for item in found["files"].items()):
            raise ValueError("its list of files is of another form")
        return Manifest(**found)
    except FileNotFoundError:
        raise DataError(f"{path} is missing, so {folder} is not a complete artifact: {fix(folder)}") from None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}): {fix(folder)}") from None


def _is_record(name: str, record: Any) -> bool:
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts
    return inside and isinstance(record, dict) and record.keys() == {"bytes", "sha256"}


def fix(folder: Path | str) -> str:
    """How to bring a damaged artifact back, in words."""
    return f"run `qthink repair {folder}`, then `dvc repro`"


def placed(folder: Path) -> str | None:
    """The `place` in the manifest of `folder`; None if the manifest is missing, damaged or from another program."""
    try:
        return manifest_of(folder).place
    except DataError:
        return None


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
            make_folder(self.folder)
        (self.folder / CLOSED).unlink(missing_ok=True)
        for torn in self.folder.glob(".*.tmp"):
            torn.unlink()
        self.resumed = any(self.folder.glob("*.unit.json"))

    def _record(self, unit: str) -> Path:
        return self.folder / f"{unit}.unit.json"

    def done(self, unit: str) -> bool:
        """Whether the unit is committed and undamaged.

        Of a damaged unit, the file at fault is named on standard error and the record is deleted, so that it is made again.
        """
        try:
            for name, file in self._committed(unit)["files"].items():
                check_file(self.folder / name, file, f"unit {unit} is made again")
        except FileNotFoundError:  # there is no record; another rank may have deleted it just now
            return False
        except DataError as error:
            print(error, file=sys.stderr, flush=True)
            self._record(unit).unlink(missing_ok=True)
            return False
        return True

    def _committed(self, unit: str) -> dict[str, Any]:
        """The record of a unit; raises DataError when it is damaged, or that of another unit or another work folder."""
        path, again = self._record(unit), f"unit {unit} is made again"
        try:
            record = unsealed(read_small(path))
        except ValueError as error:
            raise DataError(f"{path} is damaged ({error}): {again}") from None
        if (record.get("work"), record.get("unit")) != (self.folder.name, unit):
            raise DataError(f"{path} records unit {record.get('unit')} of work {record.get('work')}: {again}")
        return record

    def commit(self, unit: str, files: Mapping[str, Writer | bytes], counts: Mapping[str, int] | None = None) -> None:
        """Writes the unit's files, and then its record, which commits the unit."""
        listed = {}
        for name, write in files.items():
            path = self.folder / name
            write_file(path, write)
            listed[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        record = {"work": self.folder.name, "unit": unit, "files": listed, "counts": dict(counts or {})}
        write_file(self._record(unit), sealed(record))

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
        names = list(self._committed(unit)["files"])
        self._record(unit).unlink()
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
            for reason, count in self._committed(unit)["counts"].items():
                counts[reason] = counts.get(reason, 0) + count
        return counts

    def publish(self, out: Path, artifact: str, units: Collection[str], about: Mapping[str, Any] | None = None) -> Manifest:
        """The manifest of the folder `out`, after making that folder from the committed units.

        A new folder gets hard links to the units' files and the manifest, and is renamed to `out` in one step. An older
        `out` is moved aside first, so `out` is never incomplete. The counts of the units are summed. Raises DataError when
        a unit is not committed.
        """
        manifest = Manifest(artifact, str(out), self.settings, self.inputs, about=dict(about or {}))
        with storage(out):
            stage, aside = self._emptied("publish"), self._emptied("aside")
            for unit in units:
                if not self.done(unit):
                    raise DataError(f"unit {unit} of {out} is not committed: run the same command again")
                record = self._committed(unit)
                manifest.units[unit] = {"files": list(record["files"]), "counts": record["counts"]}
                for name, file in record["files"].items():
                    (stage / name).parent.mkdir(parents=True, exist_ok=True)
                    os.link(self.folder / name, stage / name)
                    manifest.files[name] = file
            manifest.counts = self._counts(units)
            for inner in sorted({(stage / name).parent for name in manifest.files}):
                fsync_folder(inner)
            write_file(stage / MANIFEST, sealed(vars(manifest)))
            make_folder(out.parent)
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
            write_file(self.folder / CLOSED, sealed({"places": self.places}))
        else:
            shutil.rmtree(self.folder)


def sweep(works: Path, recorded: Iterable[str]) -> None:
    """Deletes closed work folders whose outputs DVC has all recorded: `recorded`, such as the inputs of a running stage."""
    recorded = tuple(recorded)
    for closed in works.glob(f"*/*/{CLOSED}"):
        try:
            places = unsealed(read_small(closed))["places"]
        except FileNotFoundError:  # another running stage has deleted it
            continue
        except (OSError, ValueError) as error:
            print(f"{closed} is damaged ({error}): {closed.parent} stays until its stage runs again", file=sys.stderr)
            continue
        if all(any(Path(place).is_relative_to(one) for one in recorded) for place in places):
            remove_beside(closed)  # the mark goes last, or else the rest would stay for good after a kill in between
            shutil.rmtree(closed.parent, ignore_errors=True)


def listed(folder: Path, suffix: str = "") -> list[str]:
    """The sorted names of an artifact's files, from its manifest; their hashes were checked before the stage began."""
    return sorted(name for name in manifest_of(folder).files if name.endswith(suffix))


def of_set(test_set: str, name: str) -> str:
    """The name of a unit or file of a test set, such as `svamp.test`; MAIN leaves a name as it is."""
    return f"{test_set}.{name}" if test_set else name


def set_of(name: str) -> str:
    """The test set of a name without suffix that `of_set` has made; MAIN where there is none."""
    return name.rpartition(".")[0]
