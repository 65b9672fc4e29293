"""Every file that a run of the whole pipeline has left is damaged, and its reader finds it; then all is brought back.

`make faults` prints the counts. The figures in docs/reliability.md are from one run.
"""

import hashlib
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import damage
import pytest
from workplaces import TASK, Workplace

from qthink_core.artifacts import store
from qthink_core.artifacts.store import MANIFEST, Work
from qthink_core.inference import checkpoint
from qthink_core.pipeline import code, graph, layout, parameters, stage
from qthink_core.pipeline.graph import Box
from qthink_core.report import publishing
from qthink_core.running import repair

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3600)]
SEED, FLIPS = 14, 16
READER = {
    "base": "sample",
    "problems": "sample",
    "test_sets": "grade",
    "rollouts": "extract",
    "rewards": "average",
    "hidden_states": "average",
    "teachers": "train",
    "adapters": "merge",
    "models": "evaluate",
    "answers": "grade",
    "probes": "grade",
    "grades": "report",
}
# The outputs of which DVC's copy of one file is damaged, the units that are left of each, and those that it has.
ROTTEN = {
    "artifacts/rollouts/gsm8k/block-00003.parquet": "sample@gsm8k: 11 of its 12 units are kept",
    "artifacts/hidden_states/gsm8k/block-00005.npy": "extract@gsm8k: 11 of its 12 units are kept",
    "artifacts/answers/gsm8k/base/batch-00002.parquet": "baseline@gsm8k-base: 7 of its 8 units are kept",
    "models/gsm8k/final_step/model.safetensors": "merge@gsm8k-final_step: 0 of its 1 units are kept",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """A finished run as the current folder."""
    made = Workplace(tmp_path_factory.mktemp("run"))
    done = made.run(sys.executable, "-m", "qthink_core.cli", "run", "--jobs", "2")
    assert done.returncode == 0, done.stdout
    before = Path.cwd()
    os.chdir(made.root)
    yield made
    os.chdir(before)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def show(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end="")

    return show


def outputs() -> list[Path]:
    """The artifacts of the run."""
    tree, _ = parameters.load(Path())
    return [out for out in graph.outs(Path(), tree) if (out / MANIFEST).is_file()]


def inputs_of_reader(out: Path) -> tuple[Box, list[str]]:
    """A box that reads an artifact, and its inputs that have manifests."""
    tree, _ = parameters.load(Path())
    name = READER[out.parts[1] if out.parts[0] == "artifacts" else out.parts[0]]
    for box in graph.all_boxes(Path(), tree):
        deps = [dep for dep in graph.declared(Path(), box, tree)["deps"] if Path(dep).is_dir()]
        if box.stage == name and any(out.is_relative_to(dep) for dep in deps):
            return box, deps
    raise AssertionError(f"no box of {name} reads {out}")


def files_of(out: Path) -> list[Path]:
    return sorted(path for path in out.rglob("*") if path.is_file())


def test_damaged_content_of_every_artifact_is_found(place: Workplace, say: Callable[[str], None]) -> None:
    draw, found = random.Random(SEED), {}
    for out in outputs():
        _, inputs = inputs_of_reader(out)
        count = damage.in_content(files_of(out), lambda inputs=inputs: stage.check_lineage(Path(), inputs), FLIPS, draw)
        found[out] = (len(files_of(out)), count)
    for path in sorted(layout.CODE.iterdir()):
        digests = code.of_stage(Path(), path.stem)
        found[path] = (1, damage.in_content([path], lambda path=path, now=digests: code.check(path, now), FLIPS, draw))
    files = sum(count for count, _ in found.values())
    assert files * FLIPS > 2000
    say(f"{len(found)} artifacts, {files} files: {files * FLIPS} bits flipped (seed {SEED}), ")
    say(f"{sum(count for _, count in found.values()) - files * FLIPS} truncated or longer by a byte; all found")


def test_damaged_names_in_every_artifact_are_found(place: Workplace, say: Callable[[str], None]) -> None:
    found = 0
    for out in outputs():
        box, inputs = inputs_of_reader(out)

        def check(box: Box = box, inputs: list[str] = inputs) -> None:
            stage.check_complete(Path(), box)
            stage.identity(Path(), box)
            stage.check_lineage(Path(), inputs)

        files = files_of(out)
        few = {files[0], files[-1], out / MANIFEST}
        for folder in sorted({path.parent for path in files}):
            found += damage.in_names([path for path in files if path.parent == folder and path in few] or [files[0]], check)
    say(f"{found} files renamed, swapped, deleted, replaced by a folder or added; all found")


def test_damage_to_a_merged_and_an_exported_model_is_found_before_it_answers(
    place: Workplace, say: Callable[[str], None], tmp_path: Path
) -> None:
    draw, found = random.Random(SEED), 0
    merged, exported = layout.model(TASK, "final_step"), tmp_path / "exported"
    publishing.export(Path(), TASK, "final_step", exported)
    for folder in (merged, exported):
        files = [*checkpoint.files(folder)]
        assert folder / MANIFEST in files
        found += damage.in_content(files, lambda folder=folder: checkpoint.find(folder), FLIPS, draw)
    say(f"{found} damages to a merged and to an exported model; all found")


def test_damage_to_unfinished_work_is_found_and_nothing_else_is_made_again(
    place: Workplace, say: Callable[[str], None], tmp_path: Path
) -> None:
    draw, found = random.Random(SEED), 0
    for out in (layout.rollouts(TASK), layout.hidden_states(TASK), layout.answers(TASK, "base")):
        manifest = store.manifest_of(out)
        work = Work(tmp_path / out.parts[1], "0" * 64, "settings", {})

        def commit(unit: str, work: Work = work, out: Path = out, units: dict = manifest.units) -> None:
            contents = {name: (out / name).read_bytes() for name in units[unit]["files"]}
            work.commit(unit, contents, units[unit]["counts"])

        for unit in manifest.units:
            commit(unit)
        for unit, record in manifest.units.items():
            for name in (*record["files"], f"{unit}.unit.json"):
                path = work.folder / name
                content = path.read_bytes()
                damages = [*damage.truncations(content).values(), *(damage.flipped(content, draw) for _ in range(4))]
                for damaged in damages:
                    before = {one.name: one.stat().st_ino for one in work.folder.iterdir()}
                    path.write_bytes(damaged)
                    missing = [one for one in manifest.units if not work.done(one)]
                    assert missing == [unit]
                    commit(unit)
                    after = {one.name: one.stat().st_ino for one in work.folder.iterdir()}
                    others = before.keys() - {f"{unit}.unit.json", *record["files"]}
                    assert {one: after[one] for one in others} == {one: before[one] for one in others}
                found += len(damages)
    say(f"{found} damages to units of unfinished work; all found, and each unit made again alone")


def test_what_dvc_checks_out_from_a_damaged_cache_is_found_and_brought_back(
    place: Workplace, say: Callable[[str], None]
) -> None:
    lock, results = place.lock, place.results()
    cache = Path(".dvc/cache/files/md5")
    for name in ROTTEN:
        path = Path(name)
        whole = path.read_bytes()
        digest = hashlib.md5(whole).hexdigest()
        thing = cache / digest[:2] / digest[2:]
        thing.chmod(0o644)
        with damage.replaced(thing, damage.flipped(whole, random.Random(SEED))):
            thing.chmod(0o444)
            rotten = thing.read_bytes()
            path.unlink()
            assert place.run("dvc", "checkout", name).returncode == 0
            assert path.read_bytes() == rotten, "DVC checks out a damaged object"
        thing.chmod(0o644)
        thing.write_bytes(rotten)
        thing.chmod(0o444)
        _, inputs = inputs_of_reader(next(out for out in outputs() if path.is_relative_to(out)))
        damage.refused(lambda inputs=inputs: stage.check_lineage(Path(), inputs), path)
    said = list(repair.repair(Path(), []))
    for name, line in ROTTEN.items():
        assert line in said
        assert not Path(name).exists()
    ran = place.repro()
    assert {one.partition("@")[0] for one in ran} <= {"sample", "extract", "baseline", "merge"}
    assert place.lock == lock
    assert place.results() == results
    assert list(repair.repair(Path(), [])) == [f"{len(outputs()) + 1} outputs checked, 0 of them damaged or missing now"]
    say(f"{len(ROTTEN)} objects of DVC's cache: checked out as good, found, and brought back to equal bytes")


def test_a_file_is_restored_from_the_cache_and_an_object_of_the_cache_from_the_file(place: Workplace) -> None:
    folder = layout.rollouts(TASK)
    first, second = (folder / f"block-0000{number}.parquet" for number in (0, 1))
    whole, others = first.read_bytes(), {path: path.stat().st_ino for path in files_of(folder) if path != first}
    digest = hashlib.md5(second.read_bytes()).hexdigest()
    thing = Path(".dvc/cache/files/md5") / digest[:2] / digest[2:]
    thing.chmod(0o644)
    thing.write_bytes(b"rotten")
    times = first.stat()
    first.write_bytes(damage.flipped(whole, random.Random(SEED)))
    os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
    shutil.rmtree(layout.rewards(TASK))
    listing = next(Path(".dvc/cache/files/md5").glob("*/*.dir"))
    content = listing.read_bytes()
    listing.chmod(0o644)
    listing.write_bytes(content[:-1])
    said = list(repair.repair(Path(), []))
    assert f"{first} was damaged or missing: restored from DVC's cache" in said
    assert f"{second} was damaged in DVC's cache: replaced by the file here" in said
    assert said[-1].endswith("0 of them damaged or missing now")
    assert first.read_bytes() == whole
    assert {path: path.stat().st_ino for path in others} == others
    assert hashlib.md5(thing.read_bytes()).hexdigest() == digest
    assert json.loads(listing.read_bytes()) == json.loads(content)
    assert place.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."
