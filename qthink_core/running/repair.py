"""`qthink repair`: brings damaged artifacts back from what is sound, here or in DVC's cache, and removes what is not.

DVC alone does not: it takes a file whose time and size are those that it noted for undamaged, and a read-only object of its
cache without a look. It would even put such an object in place of what a stage has just made again.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core.artifacts import files, store
from qthink_core.errors import DataError, ParamError
from qthink_core.pipeline import code, graph, layout, parameters, process, stage
from qthink_core.pipeline.graph import Box
from qthink_core.running.dvc_jobs import LOCK

READ_ONLY = 0o444


class Listed(NamedTuple):
    """A file of an output as DVC has recorded it: its path, its md5, and the object in the cache."""

    path: Path
    md5: str
    object: Path

    def here(self) -> bool:
        """Whether the file is here and undamaged."""
        return _md5(self.path) == self.md5

    def cached(self) -> bool:
        """Whether the cache has it undamaged."""
        return _md5(self.object) == self.md5


def repair(root: Path, paths: Sequence[Path]) -> Iterator[str]:
    """Checks every output of the graph at or below the paths (without paths: all), and yields a line for each fault.

    A damaged file is restored from DVC's cache, a damaged object of the cache from the file here. Where both are damaged
    both are removed, and the undamaged units of the artifact go into the work folder of its box, so that `dvc repro` makes
    the others alone. Raises ParamError for a path at which the graph makes nothing, and StoppedError while a box runs whose
    output is damaged or missing.
    """
    tree, _ = parameters.load(root)
    paths = [Path(os.path.relpath(root / path, root)) for path in paths]
    made = {out: box for out, box in graph.outs(root, tree).items() if out.parts[0] != str(layout.RESULTS)}
    for path in paths:
        if not any(out.is_relative_to(path) or path.is_relative_to(out) for out in made):
            raise ParamError(f"no box of the graph makes {path}: name a folder such as {layout.BASE}, or none for all")
    chosen = [out for out in made if not paths or any(out.is_relative_to(one) or one.is_relative_to(out) for one in paths)]
    lock = read_lock(root)
    recorded = {entry["path"]: entry["md5"] for entry in _entries(lock, "outs")}
    cache, lost = _cache(root), []
    for out in chosen:
        if str(out) in recorded:
            yield from _from_cache(root, made[out], out, cache, recorded[str(out)])
        if _fault(root / out):
            lost.append(out)
    for at in dict.fromkeys(made[out] for out in lost):
        outs = [out for out in made if made[out] == at]
        yield from (f"{fault}: `dvc repro` makes it again" for out in outs if (fault := _fault(root / out)))
        yield f"{at}: {_keep(root, at, outs, lock)}"
    said = f"{len(chosen)} outputs checked, {len(lost)} of them damaged or missing"
    yield f"{said}: run `dvc repro`" if lost else f"{said} now"


def read_lock(root: Path) -> dict[str, Any]:
    """dvc.lock as DVC reads it, which may hold more values than a file of parameters; empty where there is none.

    Raises DataError where DVC cannot read it.
    """
    from dvc.utils.serialize import ParseError, load_yaml

    try:
        return load_yaml(str(root / LOCK)) if (root / LOCK).is_file() else {}
    except (ParseError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{LOCK} cannot be read ({said}): run `git checkout {LOCK}` (or `rm {LOCK}`)") from None


def _entries(lock: Mapping[str, Any], kind: str, box: str | None = None) -> list[dict[str, Any]]:
    """The deps or outs in a dvc.lock that have an md5, of one box or of all."""
    stages = lock.get("stages", {})
    boxes = stages.values() if box is None else [stages.get(box, {})]
    return [entry for one in boxes for entry in one.get(kind, []) if "md5" in entry]


def _md5(path: Path) -> str:
    """The digest by which DVC names a file; empty where there is none to read."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError:
        return ""


def _dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def _cache(root: Path) -> Path:
    done = _dvc(root, "cache", "dir")
    if done.returncode:
        raise DataError(f"`dvc cache dir` failed: {done.stderr.strip()}")
    return root / done.stdout.strip() / "files" / "md5"


def _from_cache(root: Path, at: Box, out: Path, cache: Path, digest: str) -> Iterator[str]:
    """Restores files and objects of one output from each other, as far as one of both is sound.

    A box that runs has no output yet, and would publish it beside what is restored.
    """
    listing = _listing(root / out, cache, digest)
    if listing is None:
        return
    further = any(files.strangers(root / out, {str(one.path.relative_to(root / out)) for one in listing}))
    if further or not all(one.here() and one.cached() for one in listing):
        with process.lock((root / ".work" / str(at)).with_suffix(".lock"), str(at)):
            yield from _restored(root, out, listing, further)


def _restored(root: Path, out: Path, listing: Sequence[Listed], further: bool) -> Iterator[str]:
    restore = further
    for one in listing:
        here, cached = one.here(), one.cached()
        if here and not cached and one.object.exists():
            _store(one.object, one.path.read_bytes())
            yield f"{one.path} was damaged in DVC's cache: replaced by the file here"
        elif not here:
            if not cached:
                one.object.unlink(missing_ok=True)
            if one.path.is_dir() and not one.path.is_symlink():
                shutil.rmtree(one.path)
            one.path.unlink(missing_ok=True)
            restore |= cached
            yield f"{one.path} was damaged or missing" + (
                ": restored from DVC's cache" if cached else ", in DVC's cache too"
            )
    if restore:
        _dvc(root, "checkout", "--force", str(out))  # of which a file that the cache lacks, too, is no matter here


def _listing(out: Path, cache: Path, digest: str) -> list[Listed] | None:
    """The files of an output folder by DVC's list, which is made again from sound files; None where that is not possible."""
    path = cache / digest[:2] / digest[2:]
    if _md5(path) != digest.removesuffix(".dir"):
        there = [file for file in out.rglob("*") if file.is_file()]
        entries = [{"md5": _md5(file), "relpath": file.relative_to(out).as_posix()} for file in there]
        content = json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True).encode()
        path.unlink(missing_ok=True)
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != digest.removesuffix(".dir"):
            return None
        _store(path, content)
    return [
        Listed(out / entry["relpath"], entry["md5"], cache / entry["md5"][:2] / entry["md5"][2:])
        for entry in json.loads(path.read_bytes())
    ]


def _store(path: Path, content: bytes) -> None:
    files.write_file(path, content)
    path.chmod(READ_ONLY)  # as DVC does


def _fault(folder: Path) -> str | None:
    """What is wrong with an output, in words; that of `fingerprint` has no manifest, and its readers check it."""
    if not folder.is_dir():
        return f"{folder} is missing"
    if folder.name == layout.CODE.name:
        return None
    try:
        store.read_manifest(folder)
    except DataError as error:
        return str(error).rpartition(": ")[0]
    return None


def _keep(root: Path, at: Box, outs: Sequence[Path], lock: Mapping[str, Any]) -> str:
    """Commits the undamaged units of a box's outputs to its work folder, and says how many there are.

    None are kept where the outputs were made from other parameters, inputs or code than the present ones.
    """
    place = root / ".work" / str(at)
    nothing = "none of its units can be kept"
    with process.lock(place.with_suffix(".lock"), str(at)):
        try:
            manifests = {out: store.manifest_of(root / out) for out in outs}
            fingerprint, made_from, inputs = stage.identity(root, at)
        except DataError:
            return nothing
        now = hashlib.md5(files.canonical_json(code.of_stage(root, at.stage)), usedforsecurity=False).hexdigest()
        then = {entry["path"]: entry["md5"] for entry in _entries(lock, "deps", str(at))}
        same = then.get(str(layout.code(at.stage))) == now and {one.settings for one in manifests.values()} == {made_from}
        if not same:
            return nothing
        work = store.Work(place, fingerprint, made_from, inputs)
        units = [(out, unit, record) for out, one in manifests.items() for unit, record in one.units.items()]
        for out, unit, record in units:
            whole = all(_whole(root / out / name, manifests[out].files[name]) for name in record["files"])
            if whole and not work.done(unit):
                work.commit(unit, {name: _copy(root / out / name) for name in record["files"]}, record["counts"])
        kept = sum(work.done(unit) for _, unit, _ in units)
    return f"{kept} of its {len(units)} units are kept"


def _whole(path: Path, record: Mapping[str, Any]) -> bool:
    try:
        files.check_file(path, record, "")
    except DataError:
        return False
    return True


def _copy(path: Path) -> files.Writer:
    def write(target: Path) -> None:
        shutil.copyfile(path, target)

    return write
