"""`qthink repair` on a graph of two stages, with a cache laid out as DVC does; tests/faults has it with DVC itself."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from imports import ROOT
from small_repository import PAGE, edit_page, make

from qthink_core.artifacts.store import MANIFEST, Work, read_manifest
from qthink_core.errors import DataError, ParamError, StoppedError
from qthink_core.pipeline import process, stage
from qthink_core.pipeline.graph import Box
from qthink_core.running import repair

AT = Box("write", "gsm8k", "short")
OUT = Path("artifacts/written/gsm8k/short")
CACHE = Path("cache/files/md5")
FIRST, SECOND = OUT / "first.txt", OUT / "second.txt"
WHOLE = "1 outputs checked, 0 of them damaged or missing now"


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def thing(path: Path) -> Path:
    """The object of a file in the cache, by the content that it had when the run was made."""
    listing = json.loads(Path("listing").read_text())
    digest = next(one["md5"] for one in listing if one["relpath"] == path.name)
    return CACHE / digest[:2] / digest[2:]


def keep(content: bytes, digest: str) -> None:
    path = CACHE / digest[:2] / digest[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o444)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """The work folder of a box whose output is there, in the cache and in dvc.lock; the folder itself is gone."""
    monkeypatch.chdir(make(tmp_path))
    made = Work(Path(".work") / str(AT), *stage.identity(Path(), AT))
    for unit in ("first", "second"):
        made.commit(unit, {f"{unit}.txt": unit.encode() * 9}, {"units": 1})
    made.publish(OUT, "written", ["first", "second"])
    shutil.rmtree(".work")
    listing = [{"md5": md5(path), "relpath": path.name} for path in sorted(OUT.iterdir())]
    for one in listing:
        keep((OUT / one["relpath"]).read_bytes(), one["md5"])
    content = json.dumps(listing).encode()
    Path("listing").write_bytes(content)
    digest = f"{hashlib.md5(content).hexdigest()}.dir"
    keep(content, digest)
    code = {"path": "artifacts/code/write.json", "md5": md5(Path("artifacts/code/write.json"))}
    lock = {"stages": {str(AT): {"deps": [code], "outs": [{"path": str(OUT), "md5": digest}]}}}
    Path("dvc.lock").write_text(json.dumps(lock))

    def checkout(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        assert arguments == ("checkout", "--force", str(OUT))
        for one in listing:
            if not (OUT / one["relpath"]).exists() and thing(Path(one["relpath"])).exists():
                shutil.copyfile(thing(Path(one["relpath"])), OUT / one["relpath"])
        return subprocess.CompletedProcess(arguments, 0)

    monkeypatch.setattr(repair, "_dvc", checkout)
    monkeypatch.setattr(repair, "_cache", lambda root: CACHE)
    return made


def spoil(path: Path) -> None:
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(b"X" + path.read_bytes()[1:])
    path.chmod(mode)


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def state(path: Path) -> tuple[int, int, int]:
    """What changes when a file is written."""
    about = path.stat()
    return about.st_ino, about.st_mtime_ns, about.st_mode


def test_what_is_whole_stays_as_it_is(work: Work) -> None:
    before = {path: state(path) for path in (*OUT.iterdir(), *CACHE.rglob("*"))}
    assert list(repair.repair(Path(), [OUT])) == [WHOLE]
    assert {path: state(path) for path in before} == before


@pytest.mark.parametrize("damage", [spoil, Path.unlink, lambda path: (path.unlink(), path.mkdir()), as_pipe])
@pytest.mark.parametrize("path", [SECOND, OUT / MANIFEST])
def test_a_damaged_file_comes_from_the_cache(work: Work, damage: Callable[[Path], object], path: Path) -> None:
    before = state(FIRST)
    damage(path)
    assert list(repair.repair(Path(), [OUT])) == [f"{path} was damaged or missing: restored from DVC's cache", WHOLE]
    assert state(FIRST) == before
    assert read_manifest(OUT).counts == {"units": 2}


def test_a_damaged_object_of_the_cache_comes_from_the_file(work: Work) -> None:
    spoil(thing(SECOND))
    assert list(repair.repair(Path(), [OUT.parent])) == [
        f"{SECOND} was damaged in DVC's cache: replaced by the file here",
        "artifacts/written/gsm8k/long is missing: `dvc repro` makes it again",
        "write@gsm8k-long: none of its units can be kept",
        "2 outputs checked, 1 of them damaged or missing: run `dvc repro`",
    ]
    assert thing(SECOND).read_bytes() == SECOND.read_bytes()
    assert thing(SECOND).stat().st_mode & 0o777 == 0o444


def test_a_damaged_list_of_files_is_made_again_from_the_files(work: Work) -> None:
    (listing,) = CACHE.rglob("*.dir")
    spoil(listing)
    assert list(repair.repair(Path(), [OUT])) == [WHOLE]
    assert listing.read_bytes() == Path("listing").read_bytes()


def both(path: Path) -> None:
    spoil(path)
    spoil(thing(path))


def test_what_is_damaged_in_both_places_goes_and_the_other_unit_is_kept(work: Work) -> None:
    both(SECOND)
    assert list(repair.repair(Path(), [OUT])) == [
        f"{SECOND} was damaged or missing, in DVC's cache too",
        f"{SECOND} is listed in its manifest but missing: `dvc repro` makes it again",
        f"{AT}: 1 of its 2 units are kept",
        "1 outputs checked, 1 of them damaged or missing: run `dvc repro`",
    ]
    assert not SECOND.exists()
    assert not thing(SECOND).exists()
    again = Work(Path(".work") / str(AT), *stage.identity(Path(), AT))
    assert [again.done(unit) for unit in ("first", "second")] == [True, False]
    assert again.path("first.txt").read_bytes() == FIRST.read_bytes()


@pytest.mark.parametrize("other", ["code", "parameters", "input", "record"])
def test_no_unit_is_kept_that_was_made_from_something_else(work: Work, other: str) -> None:
    both(SECOND)
    if other == "code":
        edit_page(Path(), PAGE.replace("two units", "2 units"))
    elif other == "parameters":
        params = Path("params.yaml")
        params.write_text(params.read_text().replace("seed: 0", "seed: 1"))
    elif other == "input":
        Path("texts/gsm8k.txt").write_text("another")
    else:
        Path("dvc.lock").unlink()
    assert f"{AT}: none of its units can be kept" in list(repair.repair(Path(), [OUT]))
    assert not list(Path(".work").glob("*/*/*.unit.json"))


@pytest.mark.parametrize(
    "damage",
    [lambda: both(SECOND), lambda: shutil.rmtree(OUT), lambda: spoil(thing(SECOND)), lambda: (OUT / "third").touch()],
    ids=["in both places", "removed by DVC before the run", "in the cache", "a further file"],
)
def test_while_a_box_runs_its_output_stays_as_it_is(work: Work, damage: Callable[[], object]) -> None:
    damage()
    before = {path: state(path) for path in (*OUT.rglob("*"), *CACHE.rglob("*"))}
    with process.lock(Path(".work") / f"{AT}.lock", str(AT)), pytest.raises(StoppedError, match="is already running"):
        list(repair.repair(Path(), [OUT]))
    assert {path: state(path) for path in (*OUT.rglob("*"), *CACHE.rglob("*"))} == before


def test_a_path_that_the_graph_does_not_make_is_refused(work: Work) -> None:
    with pytest.raises(ParamError, match="no box of the graph makes artifacts/writen: name a folder such as artifacts/base"):
        list(repair.repair(Path(), [Path("artifacts/writen")]))


def test_the_committed_lock_is_read_though_it_is_longer_than_a_file_of_parameters_may_be() -> None:
    assert {"base", "report"} < repair.read_lock(ROOT)["stages"].keys()


@pytest.mark.parametrize("torn", [b"stages:\n  base:\n    outs: [", b"stages: '\xff'"])
def test_a_lock_that_dvc_cannot_read_is_one_line(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "dvc.lock").write_bytes(torn)
    with pytest.raises(DataError, match=r"^dvc\.lock cannot be read \(.*\): run `git checkout dvc\.lock`") as found:
        repair.read_lock(tmp_path)
    assert "\n" not in str(found.value)
