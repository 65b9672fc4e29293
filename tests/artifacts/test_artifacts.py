"""The contract between stages: killed at any file operation, a unit is whole or absent, and the end is the same bytes."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qthink_core.artifacts import files, store
from qthink_core.artifacts.files import sealed, unsealed
from qthink_core.artifacts.store import MANIFEST, Work, read_manifest
from qthink_core.errors import DataError, QThinkError
from qthink_core.pipeline import stage

KILLED = 137
OUT = Path("artifacts/things")
UNITS = ("block-0", "block-1", "block-2")
# What Python tells an audit hook before it touches a file; reading is left out.
TOUCHES = {"os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def in_two_pieces(content: bytes, between: Callable[[], None] = lambda: None) -> files.Writer:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            between()
            file.write(content[len(content) // 2 :])

    return write


def make(code: str = "v1", between: Callable[[], None] = lambda: None, made: list[str] | None = None) -> None:
    """A stage in small, in the current folder: three units of two files, checkpoints of which only the last stays."""
    work = Work(Path(".work/stage"), hashlib.sha256(code.encode()).hexdigest(), "settings", {"artifacts/base": "b" * 64})
    for number, unit in enumerate(UNITS):
        if work.done(unit):
            continue
        if made is not None:
            made.append(unit)
        content = unit.encode() * 40
        files = {f"{unit}.bin": in_two_pieces(content, between), f"{unit}.txt": in_two_pieces(content[::-1], between)}
        work.commit(unit, files, {"rows": number + 1})
        work.commit(f"checkpoint-{number}", {f"checkpoint-{number}": b"weights"})
        if number and work.done(f"checkpoint-{number - 1}"):
            work.drop(f"checkpoint-{number - 1}")
    work.publish(OUT, "things", UNITS, {"K": 6})
    work.close()


def killed_at(operation: int, root: Path, **how: Any) -> bool:
    """Whether `make`, in a process of its own, came to its n-th file operation and was killed there."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(root)
            count = 0

            def tick() -> None:
                nonlocal count
                count += 1
                if count == operation:
                    os._exit(KILLED)

            def hook(event: str, args: tuple[Any, ...]) -> None:
                writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
                if writes or event in TOUCHES:
                    tick()

            fsync = os.fsync
            os.fsync = lambda handle: (tick(), fsync(handle))[1]
            sys.addaudithook(hook)
            make(between=tick, **how)
            status = 0
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_hole(path: Path) -> None:
    os.truncate(path, (256 << 20) + 1)


def check_absent_or_whole(out: Path) -> None:
    if out.exists():
        read_manifest(out, "things")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository's root as the current folder: stages name their outputs relative to it."""
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def unbroken(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What a run that nobody disturbs makes, elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(elsewhere)
        make()
    return contents(elsewhere / OUT)


@pytest.mark.slow
def test_an_output_that_is_replaced_is_at_every_moment_the_old_the_new_or_absent(root: Path) -> None:
    older = Work(Path(".work/older"), "f" * 64, "older settings", {})
    older.commit("block-9", {"block-9.bin": b"older"})
    older.publish(root / "older", "things", ["block-9"])
    make()
    seen = set()
    operation = 1
    while True:
        shutil.rmtree(OUT, ignore_errors=True)
        shutil.copytree(root / "older", OUT)
        if not killed_at(operation, root):
            break
        seen.add(read_manifest(OUT, "things").settings if OUT.exists() else "absent")
        operation += 1
    assert seen == {"older settings", "absent", "settings"}
    assert read_manifest(OUT, "things").settings == "settings"
    assert sorted(contents(OUT)) == sorted([MANIFEST, *(f"{unit}.{end}" for unit in UNITS for end in ("bin", "txt"))])


def test_no_output_ever_misses_a_unit(root: Path) -> None:
    work = Work(Path(".work/stage"), "f" * 64, "settings", {})
    work.commit("block-0", {"a": b"a"})
    with pytest.raises(QThinkError, match="unit block-1 of artifacts/things is not committed"):
        work.publish(OUT, "things", ["block-0", "block-1"])
    assert not OUT.exists()


def test_a_name_appears_after_its_bytes_are_durable_and_is_made_durable_itself(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(handle: int) -> None:
        said.append(("fsync", str(Path(f"/proc/self/fd/{handle}").resolve())))
        fsync(handle)

    def note_rename(source: Path, target: Path, **how: Any) -> None:
        said.append(("rename", str(Path(source).resolve())))
        rename(source, target, **how)
        said.append(("named", str(Path(target).resolve())))

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    make()
    names = [path for what, path in said if what == "named"]
    assert len(names) == 6 + 3 + 6 + 1 + 1 + 1  # units' files and records, checkpoints, manifest, output, closing
    for number, (what, path) in enumerate(said):
        if what == "rename" and Path(path).name != "publish":
            assert said[number - 1] == ("fsync", path)
        if what == "named":
            assert said[number + 1] == ("fsync", str(Path(path).parent))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]),
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b""),
        as_pipe,
        as_hole,
    ],
    ids=["truncated", "flipped", "missing", "empty", "pipe", "too large"],
)
@pytest.mark.parametrize("name", ["block-1.bin", "block-1.txt", "block-1.unit.json"])
def test_a_damaged_unit_is_made_again_and_no_other(
    root: Path, unbroken: dict[str, bytes], name: str, spoil: Callable[[Path], Any]
) -> None:
    make()
    shutil.rmtree(OUT)
    spoil(next(root.glob(f".work/stage/*/{name}")))
    made: list[str] = []
    make(made=made)
    assert made == ["block-1"]
    assert contents(OUT) == unbroken


def test_a_flipped_bit_in_any_byte_of_an_artifact_is_refused(root: Path) -> None:
    work = Work(Path(".work/stage"), "f" * 64, "settings", {"artifacts/base": "b" * 64})
    work.commit("block-0", {"a": b"some bytes"}, {"rows": 3})
    work.publish(OUT, "things", ["block-0"], {"K": 6})
    for name in ("a", MANIFEST):
        content = (OUT / name).read_bytes()
        for at in range(len(content)):
            flipped = bytearray(content)
            flipped[at] ^= 1 << at % 8
            (OUT / name).write_bytes(flipped)
            with pytest.raises(DataError, match=rf"things/{name} .*`qthink repair artifacts/things`, then `dvc repro`"):
                read_manifest(OUT, "things")
        (OUT / name).write_bytes(content)
    assert read_manifest(OUT, "things").counts == {"rows": 3}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda: (OUT / "block-0.bin").unlink(), "things/block-0.bin is listed in its manifest but missing"),
        (
            lambda: (OUT / "block-0.bin").rename(OUT / "block-9.bin"),
            "things/block-0.bin is listed in its manifest but missing",
        ),
        (
            lambda: (OUT / "block-0.bin").rename(OUT / "block-1.bin"),
            "things/block-0.bin is listed in its manifest but missing",
        ),
        (lambda: os.truncate(OUT / "block-0.bin", 3), "things/block-0.bin has 3 bytes where its manifest says 280"),
        (
            lambda: (OUT / "block-0.bin").write_bytes((OUT / "block-1.bin").read_bytes()),
            "things/block-0.bin does not have the sha256",
        ),
        (
            lambda: (OUT / MANIFEST).unlink(),
            "things/manifest.json is missing, so artifacts/things is not a complete artifact",
        ),
        (lambda: (OUT / MANIFEST).write_text("[]\n"), "things/manifest.json is damaged"),
        (lambda: (OUT / MANIFEST).write_bytes(b"\xff"), "things/manifest.json is damaged"),
        (lambda: (OUT / MANIFEST).write_bytes(sealed({"artifact": "things"})), "things/manifest.json is damaged"),
        (lambda: as_pipe(OUT / MANIFEST), r"things/manifest.json is damaged \(is not a regular file\)"),
        (
            lambda: as_hole(OUT / MANIFEST),
            r"things/manifest.json is damaged \(has 268,435,457 bytes, expected at most 268,435,456\)",
        ),
        (lambda: shutil.rmtree(OUT), "things/manifest.json is missing"),
    ],
)
def test_a_reader_refuses_a_damaged_artifact_naming_file_and_mend(root: Path, spoil: Callable[[], Any], said: str) -> None:
    make()
    spoil()
    with pytest.raises(DataError, match=f"{said}.*: run `qthink repair artifacts/things`") as caught:
        read_manifest(OUT, "things")
    assert caught.value.exit_code == 65
    assert "\n" not in str(caught.value)


def test_a_reader_refuses_an_artifact_of_another_kind(root: Path) -> None:
    make()
    with pytest.raises(DataError, match="artifacts/things holds 'things' where 'rollouts' was expected"):
        read_manifest(OUT, "rollouts")


def test_a_missing_input_has_no_digest(root: Path) -> None:
    Path("empty").mkdir()
    for name in ("nowhere", "empty"):
        with pytest.raises(DataError, match=rf"{name} is missing or holds no manifest.json: run `dvc repro`"):
            store.digest(Path(name))


def test_the_digest_of_an_input_changes_with_any_of_its_files(root: Path) -> None:
    make()
    before = store.digest(OUT), store.digest(Path("artifacts"))
    assert before == (files.sha256(OUT / MANIFEST), store.digest(OUT.parent))
    shutil.copytree(OUT, OUT.with_name("more"))
    assert store.digest(Path("artifacts")) != before[1]
    shutil.rmtree(OUT.with_name("more"))
    manifest = unsealed((OUT / MANIFEST).read_bytes())
    manifest["files"]["block-0.bin"]["sha256"] = "0" * 64
    (OUT / MANIFEST).write_bytes(sealed(manifest))
    assert store.digest(OUT) != before[0]
    assert store.digest(Path("artifacts")) != before[1]


def test_an_output_tells_neither_when_nor_where_nor_by_which_process_it_was_made(
    root: Path, unbroken: dict[str, bytes]
) -> None:
    assert not killed_at(0, root)  # another process, another folder, a later time
    assert contents(OUT) == unbroken
    manifest = (OUT / MANIFEST).read_text()
    assert json.loads(manifest)["counts"] == {"rows": 6}
    assert str(root) not in manifest
    assert {path.stat().st_mode & 0o777 for path in OUT.iterdir()} == {0o644}


def test_other_code_makes_the_units_again_and_the_same_manifest(root: Path, unbroken: dict[str, bytes]) -> None:
    make()
    older = list(root.glob(".work/stage/*"))
    made: list[str] = []
    make("v2", made=made)
    assert made == list(UNITS)
    assert contents(OUT) == unbroken
    newer = list(root.glob(".work/stage/*"))
    assert len(newer) == 1
    assert newer != older


def test_killed_before_dvc_has_recorded_the_output_nothing_is_made_again(root: Path, unbroken: dict[str, bytes]) -> None:
    make()
    shutil.rmtree(OUT)  # DVC deletes outputs that are not in dvc.lock and runs the stage again
    made: list[str] = []
    make(made=made)
    assert made == []
    assert contents(OUT) == unbroken


def test_closed_work_goes_when_a_later_stage_reads_all_that_it_made(root: Path) -> None:
    make()
    works = Path(".work")
    running = Work(works / "running", "f" * 64, "settings", {})
    running.commit("block-0", {"a": b"a"})
    two = Work(works / "two", "f" * 64, "settings", {})
    two.commit("one", {"a": b"a"})
    for name in ("this", "that"):
        two.publish(Path("artifacts/two") / name, "things", ["one"])
    two.close()
    store.sweep(works, ["artifacts/base", "artifacts/thing", "artifacts/two/this"])
    assert len(list(works.glob("*/*/block-*.unit.json"))) == len(UNITS) + 1
    assert two.done("one")
    store.sweep(works, ["artifacts/things", "artifacts/two"])
    assert [str(path) for path in works.glob("*/*/*.unit.json")] == [str(running.folder / "block-0.unit.json")]


def test_closed_work_that_was_being_deleted_when_the_process_was_killed_goes_the_next_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    unlink = Path.unlink

    def killed(path: Path, **how: Any) -> None:
        unlink(path, **how)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            store.sweep(Path(".work"), ["artifacts"])
    store.sweep(Path(".work"), ["artifacts"])
    assert list(Path(".work/stage").iterdir()) == []


@pytest.mark.parametrize("spoil", [as_pipe, as_hole])
def test_closed_work_whose_mark_cannot_be_read_stays_and_is_named(
    root: Path, spoil: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    make()
    (closed,) = Path(".work/stage").glob(f"*/{store.CLOSED}")
    spoil(closed)
    store.sweep(Path(".work"), ["artifacts"])
    assert capsys.readouterr().err.endswith(f"): {closed.parent} stays until its stage runs again\n")
    assert len(list(closed.parent.glob("block-*.unit.json"))) == len(UNITS)


def test_the_names_of_new_folders_and_of_files_inside_an_output_are_made_durable(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, list[str]]] = []

    def note(folder: Path) -> None:
        synced.append((str(folder), sorted(path.name for path in Path(folder).iterdir())))

    monkeypatch.setattr(files, "fsync_folder", note)
    monkeypatch.setattr(store, "fsync_folder", note)
    work = Work(Path(".work/stage"), "f" * 64, "settings", {})
    assert synced == [(".", [".work"]), (".work", ["stage"]), (".work/stage", ["f" * 16])]
    work.commit("unit", {"inner/a": b"a"})
    work.publish(Path("artifacts/things"), "things", ["unit"])
    assert (str(work.folder), ["inner"]) in synced
    assert (str(work.folder / "publish" / "inner"), ["a"]) in synced
    assert (".", [".work", "artifacts"]) in synced


def test_scratch_is_empty_whatever_an_earlier_run_left_there(root: Path) -> None:
    work = Work(Path(".work/stage"), "f" * 64, "settings", {})
    (work.scratch() / "torn").write_text("left")
    assert list(work.scratch().iterdir()) == []


@pytest.fixture
def graph(root: Path) -> Path:
    """A repository of one stage that reads a base and problems."""
    Path("params").mkdir()
    Path("params.yaml").write_text("scale: nano\nseed: 0\nlora:\n  r: 32\n  alpha: 16\n")
    Path("params/nano.yaml").write_text("batch: 8\n")
    Path("stages").mkdir()
    Path("stages/train.py").write_text("x = 1\n")
    Path("dvc.yaml").write_text(
        "stages:\n  train:\n    cmd: python -m stages.train\n    params: [seed, lora, {'params/${scale}.yaml': [batch]}]\n"
        "    deps: [artifacts/base, 'artifacts/problems/${item.task}']\n"
    )
    publish("artifacts/base", {}, b"base")
    publish("artifacts/problems/gsm8k", {"artifacts/base": store.digest(root / "artifacts/base")}, b"problems")
    return root


def publish(out: str, inputs: dict[str, str], content: bytes) -> None:
    work = Work(Path(".work/made") / out.replace("/", "-"), "f" * 64, "settings", inputs)
    work.commit("unit", {"content": content})
    work.publish(Path(out), "things", ["unit"])
    shutil.rmtree(work.folder)


AT = stage.Box("train", "gsm8k", "uniform")


@pytest.mark.parametrize(
    ("old", "new"), [("  r: 32\n  alpha: 16", "  alpha: 16\n  r: 32"), ("seed: 0", "seed: 0  # the first")]
)
def test_neither_the_order_of_keys_nor_a_comment_among_the_parameters_has_a_meaning(graph: Path, old: str, new: str) -> None:
    before = stage.identity(graph, AT)
    text = Path("params.yaml").read_text()
    assert text.count(old) == 1
    Path("params.yaml").write_text(text.replace(old, new))
    assert stage.identity(graph, AT) == before


def test_the_artifact_of_another_place_is_refused(graph: Path) -> None:
    publish("artifacts/problems/math500", {"artifacts/base": store.digest(graph / "artifacts/base")}, b"others")
    shutil.rmtree("artifacts/problems/gsm8k")
    Path("artifacts/problems/math500").rename("artifacts/problems/gsm8k")
    with pytest.raises(DataError, match="artifacts/problems/gsm8k holds the artifact of artifacts/problems/math500"):
        stage.check_lineage(graph, ["artifacts/base", "artifacts/problems/gsm8k"])


def test_a_damaged_input_is_refused_before_the_stage_starts(graph: Path) -> None:
    Path("artifacts/base/content").write_bytes(b"bass")
    with pytest.raises(DataError, match="artifacts/base/content does not have the sha256 of its manifest"):
        stage.check_lineage(graph, ["artifacts/base"])
