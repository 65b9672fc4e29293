"""Damage to what lies between stages is found before use, the file is named, and only what is damaged is made again.

The unmarked tests damage small artifacts. Those marked `faults` damage every file that a run of the whole pipeline has left.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import damage
import numpy as np
import pytest
import torch
from damage import refused, replaced

from qthink_core.artifacts import hidden_states, rollouts, store
from qthink_core.artifacts.files import canonical_json, sealed, unsealed
from qthink_core.artifacts.hidden_states import Source
from qthink_core.artifacts.pairs import Pair
from qthink_core.artifacts.rollouts import Rollout
from qthink_core.artifacts.store import CLOSED, MANIFEST, Manifest, Work
from qthink_core.errors import DataError
from qthink_core.inference import checkpoint
from qthink_core.pipeline import code, stage
from qthink_core.training import checkpoints

SEED = 14
BLOCKS = ("block-00000", "block-00001")
PAIRS = (Pair(2, "even"), Pair(3, "running"))
Units = dict[str, dict[str, object]]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path()


def of_rollouts() -> Units:
    rows = {name: [Rollout([n, 2], name, "stop", problem_id=name, rollout=0)] for n, name in enumerate(BLOCKS)}
    return {name: {f"{name}.parquet": rollouts.writer(found)} for name, found in rows.items()}


def of_hidden_states() -> Units:
    states = {name: np.full((1, 5, 4), n, np.float32) for n, name in enumerate(BLOCKS)}
    return {name: dict(hidden_states.shard(name, [Source(name, 0, 9)], found, PAIRS)) for name, found in states.items()}


def of_model() -> Units:
    def files(seed: int) -> dict[str, bytes]:
        described = {"K": 0, "thinking": False}
        return {"config.json": b"{}", "model.safetensors": bytes([seed]) * 60, "qthink.json": canonical_json(described)}

    return {"model-0": files(0), "model-1": {f"seed-1/{name}": content for name, content in files(1).items()}}


KINDS: dict[str, Callable[[], Units]] = {"rollouts": of_rollouts, "hidden_states": of_hidden_states, "model": of_model}


def published(root: Path, name: str, units: Units) -> Path:
    """An artifact folder at the path `name`, made of these units."""
    work = Work(root / ".work" / name.replace("/", "-"), "0" * 64, "settings", {})
    for unit, files in units.items():
        work.commit(unit, files)
    work.publish(root / name, Path(name).name, list(units))
    return root / name


def reading(*folders: Path) -> Callable[[], object]:
    """What every stage does before it reads these artifacts."""
    return lambda: ([store.digest(folder) for folder in folders], stage.check_lineage(Path(), map(str, folders)))


@pytest.mark.parametrize("kind", KINDS)
def test_any_damage_to_an_artifact_is_found_and_named(root: Path, kind: str) -> None:
    folder = published(root, kind, KINDS[kind]())
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    draw = random.Random(SEED)
    assert damage.in_content(files, reading(folder), 12, draw) >= 54
    inside = sorted({path.parent for path in files})
    assert sum(damage.in_names([path for path in files if path.parent == one], reading(folder)) for one in inside) > 15


def test_a_file_between_artifacts_is_found_and_what_a_killed_process_leaves_is_not_taken_for_one(root: Path) -> None:
    for system in ("base", "latent"):
        published(root, f"answers/{system}", of_rollouts())
    check = reading(Path("answers"))
    for name in (".x2.tmp", "base/.block-00000.parquet.tmp", "base/generate.pyc"):
        (root / "answers" / name).write_bytes(b"half")
    check()
    for name in ("answers.parquet", "old/block-00000.parquet"):
        path = root / "answers" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"strange")
        refused(check, path)
        path.unlink()


def test_an_artifact_in_anothers_place_is_found(root: Path) -> None:
    one, other = (published(root, f"answers/{system}", of_rollouts()) for system in ("base", "latent"))
    one.rename(root / "aside")
    other.rename(one)
    (root / "aside").rename(other)
    refused(reading(Path("answers")), one)


def started(place: Path) -> Work:
    """Work with two committed units and the record of a third that has no files."""
    work = Work(place, "0" * 64, "settings", {})
    for name, files in of_rollouts().items():
        work.commit(name, files, {"rollouts": 1})
    return work


def inodes(work: Work) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in work.folder.iterdir()}


@pytest.mark.parametrize("name", ["block-00001.parquet", "block-00001.unit.json"])
def test_a_damaged_unit_is_named_and_made_again_alone(root: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    work = started(root / "work")
    path, draw = work.folder / name, random.Random(SEED)
    content, before = path.read_bytes(), inodes(work)
    for damaged in (*damage.truncations(content).values(), *(damage.flipped(content, draw) for _ in range(20)), None):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        assert [work.done(unit) for unit in BLOCKS] == [True, False]
        said = capsys.readouterr().err
        gone = damaged is None and name.endswith(".unit.json")
        assert said == "" if gone else (name in said and "unit block-00001 is made again" in said and said.count("\n") == 1)
        with pytest.raises(DataError, match="block-00001 of out is not committed"):
            work.publish(Path("out"), "rollouts", BLOCKS)
        work.commit("block-00001", of_rollouts()["block-00001"], {"rollouts": 1})
        assert {one: number for one, number in inodes(work).items() if "00000" in one} == {
            one: number for one, number in before.items() if "00000" in one
        }
    assert work.publish(Path("out"), "rollouts", BLOCKS).counts == {"rollouts": 2}


def test_the_record_of_another_unit_or_of_other_work_commits_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = started(root / "work")
    first, second = (work.folder / f"{unit}.unit.json" for unit in BLOCKS)
    shutil.copy(second, first)
    assert [work.done(unit) for unit in BLOCKS] == [False, True]
    assert "block-00000.unit.json records unit block-00001 of work" in capsys.readouterr().err
    work.commit(BLOCKS[0], of_rollouts()[BLOCKS[0]], {"rollouts": 1})
    older = Work(root / "older", "1" * 64, "other settings", {})
    for path in work.folder.iterdir():
        shutil.copy(path, older.folder / path.name)
    assert [older.done(unit) for unit in BLOCKS] == [False, False]
    assert [work.done(unit) for unit in BLOCKS] == [True, True]


@pytest.mark.parametrize("end", ["safetensors", "losses.json", "unit.json"])
def test_a_damaged_checkpoint_is_not_loaded(root: Path, end: str, capsys: pytest.CaptureFixture[str]) -> None:
    work, draw = Work(root / "work", "0" * 64, "settings", {}), random.Random(SEED)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    saved = weight.detach().clone()
    for damaging in (*damage.truncations(b"x" * 99), *range(12), None):
        checkpoints.save(work, {"weight": weight}, optimizer, [{"step": 1}])
        path = work.folder / f"checkpoint-0000001.{end}"
        content = path.read_bytes()
        if isinstance(damaging, str):
            path.write_bytes(damage.truncations(content).get(damaging, b""))
        elif damaging is not None:
            path.write_bytes(damage.flipped(content, draw))
        with torch.no_grad():
            weight.zero_()
        found = checkpoints.restore(work, {"weight": weight}, optimizer)
        assert found == ([] if damaging is not None else [{"step": 1}])
        assert path.name in capsys.readouterr().err or damaging is None
        assert torch.equal(weight, saved if damaging is None else torch.zeros(3))
        with torch.no_grad():
            weight.copy_(saved)


def test_a_damaged_mark_of_published_work_keeps_the_work(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, draw = started(root / ".work" / "sample"), random.Random(SEED)
    work.publish(Path("out"), "rollouts", BLOCKS)
    work.close()
    path = work.folder / CLOSED
    content = path.read_bytes()
    for damaged in (*damage.truncations(content).values(), *(damage.flipped(content, draw) for _ in range(40))):
        path.write_bytes(damaged)
        store.sweep(root / ".work", ["out"])
        assert f"{path} is damaged" in capsys.readouterr().err
        assert work.done(BLOCKS[0])
    path.write_bytes(content)
    store.sweep(root / ".work", ["out"])
    assert not work.folder.exists()


def test_a_damaged_record_of_the_code_is_found(root: Path) -> None:
    digests = {"stages/train.py": "0" * 64, "qthink_core/errors.py": "1" * 64}
    (path,) = code.write(root / "artifacts/code", {"train": digests})
    assert damage.in_content([path], lambda: code.check(path, digests), 60, random.Random(SEED)) == 66


@pytest.mark.parametrize("inside", ["", "seed-1"])
def test_a_model_is_checked_before_it_answers(root: Path, inside: str) -> None:
    folder = published(root, "models/latent", of_model()) / inside
    files = [folder / name for name in ("config.json", "model.safetensors", "qthink.json")]
    names = {str(path): path.read_bytes() for path in (*files, root / "models/latent" / MANIFEST)}
    draw = random.Random(SEED)
    assert damage.in_content([Path(name) for name in names], lambda: checkpoint.find(folder), 12, draw) > 60
    (folder / "generation_config.json").write_text("{}")
    refused(lambda: checkpoint.find(folder), folder / "generation_config.json")
    (folder / "generation_config.json").unlink()
    checkpoint.find(folder)


def test_the_manifest_of_another_program_is_no_manifest_of_ours(root: Path) -> None:
    (root / "theirs").mkdir()
    (root / "theirs/config.json").write_text("{}")
    (root / "theirs/manifest.json").write_text(json.dumps({"version": 3}))
    assert checkpoint.find(root / "theirs").K == 0


def test_a_manifest_with_a_valid_seal_and_other_fields_is_refused(root: Path) -> None:
    folder = published(root, "rollouts", of_rollouts())
    whole = unsealed((folder / MANIFEST).read_bytes())
    for other in ({"files": []}, {"files": {"../x": {"bytes": 1, "sha256": ""}}}, {"files": {"a": {}}}, {"more": 1}):
        with replaced(folder / MANIFEST, sealed(whole | other)):
            refused(reading(folder), folder / MANIFEST)
    assert isinstance(store.manifest_of(folder), Manifest)
