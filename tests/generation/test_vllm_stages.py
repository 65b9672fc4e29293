"""The stages with engine: vllm, as processes: `make test-vllm`. Skipped where vLLM is not installed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from graph import copy_repository, fingerprint
from ruamel.yaml import YAML
from vllm_models import DEVICE, Folders, make

from qthink_core.artifacts import answers, prepared, store
from qthink_core.artifacts.answers import Answer
from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.store import Work

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]

G, PROBLEMS = 4, 60
# A stage with vLLM takes half a minute to start on two cores that are busy.
PATIENCE_S = 300.0


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Folders:
    return make(tmp_path_factory.mktemp("models"), tokenizer)


@pytest.fixture
def repository(tmp_path: Path, folders: Folders, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of this repository at a small scale with engine: vllm, whose base and trained system are the models above."""
    root = copy_repository(tmp_path)
    monkeypatch.chdir(root)
    yaml = YAML()
    params, sized = yaml.load(root / "params.yaml"), yaml.load(root / "params/tiny.yaml")
    sized["device"] = DEVICE.type
    params["tasks"], params["seeds"], params["rollout"]["G"] = ["gsm8k"], [0, 1], G
    sized["prepare"] |= {"n_train": PROBLEMS, "n_test": 20}
    sized["sample"] |= {"max_new_tokens": 12, "block_problems": 1, "engine": "vllm"}
    sized["evaluate"] |= {"max_new_tokens": 24, "batch": 8, "engine": "vllm"}
    yaml.dump(params, root / "params.yaml")
    yaml.dump(sized, root / "params/tiny.yaml")
    base = {path.name: path.read_bytes() for path in folders.base.iterdir()}
    latent = {path.name: path.read_bytes() for path in folders.latent.iterdir()}
    publish("artifacts/base", "base", base)
    publish("models/gsm8k/uniform", "model", latent | {f"seed-1/{name}": content for name, content in latent.items()})
    fingerprint(root)
    ran("prepare@gsm8k")
    open_blocks(tokenizer)
    return root


def open_blocks(tokenizer: Any) -> None:
    """Ends each prompt in an open think block: a model of random weights opens none, and its rollouts would be of no use."""
    place, think = Path("artifacts/problems/gsm8k"), tokenizer.convert_tokens_to_ids("<think>")
    rows = prepared.read(place, "train")
    opened = [prepared.Prompted(**row | {"prompt_thinking": [*row["prompt_thinking"], think]}) for row in rows]
    files = {name: (place / name).read_bytes() for name in store.listed(place)}
    publish(str(place), "problems", files | {"train.parquet": prepared.writer(opened)})


def publish(place: str, artifact: str, files: Mapping[str, Writer | bytes]) -> None:
    work = Work(Path("by-hand") / artifact, "f" * 64, "settings", {})
    work.commit("unit", files)
    work.publish(Path(place), artifact, ["unit"])


def started(box: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"stages.{box.partition('@')[0]}"]
    return subprocess.Popen(command, env=os.environ | {"DVC_STAGE": box}, stderr=subprocess.PIPE, text=True)


def ran(box: str) -> None:
    process = started(box)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err


def units(box: str) -> dict[str, int]:
    """The committed units of a box and the inodes of their records: a unit that is made again has another."""
    return {path.name: path.stat().st_ino for path in Path(".work", box).glob("*/*.unit.json")}


def content(place: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(place).iterdir())}


def test_a_stage_that_is_killed_while_it_samples_ends_with_the_bytes_of_one_that_was_not(repository: Path) -> None:
    box, place = "sample@gsm8k", "artifacts/rollouts/gsm8k"
    process, end = started(box), time.monotonic() + PATIENCE_S
    while len(units(box)) < 3:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "no block was made"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = units(box)
    assert 3 <= len(kept) < PROBLEMS
    ran(box)
    assert kept.items() <= units(box).items()
    resumed = content(place)
    shutil.rmtree(".work")
    shutil.rmtree(place)
    ran(box)
    assert content(place) == resumed
    assert store.read_manifest(Path(place), "rollouts").counts["rollouts"] == PROBLEMS * G


def test_the_stages_that_answer_give_the_same_with_either_engine(repository: Path) -> None:
    """Two training seeds, so that one process opens two engines; the base model as well."""
    boxes = {"evaluate@gsm8k-uniform": 40, "baseline@gsm8k-base_direct": 20}
    made: dict[str, dict[str, list[Answer]]] = {}
    for engine in ("vllm", "hf"):
        file = repository / "params/tiny.yaml"
        file.write_text(re.sub(r"engine: \w+", f"engine: {engine}", file.read_text()))
        for box in boxes:
            ran(box)
        made[engine] = {box: answers.read(Path("artifacts/answers/gsm8k", box.partition("-")[2])) for box in boxes}
    assert {box: len(rows) for box, rows in made["hf"].items()} == boxes
    assert made["vllm"] == made["hf"]


def test_thoughts_are_sampled_by_seed_and_question_whatever_the_batch(repository: Path) -> None:
    box, place = "baseline@gsm8k-base", Path("artifacts/answers/gsm8k/base")

    def tokens(**settings: Any) -> dict[str, list[int]]:
        yaml = YAML()
        params, sized = yaml.load(repository / "params.yaml"), yaml.load(repository / "params/tiny.yaml")
        for key, value in settings.items():
            (sized["evaluate"] if key in sized["evaluate"] else params["evaluate"])[key] = value
        yaml.dump(params, repository / "params.yaml")
        yaml.dump(sized, repository / "params/tiny.yaml")
        ran(box)
        return {row.problem_id: row.tokens for row in answers.read(place)}

    sampled = tokens(thinking="sampled", batch=8)
    assert len(sampled) == 20
    assert tokens(batch=5) == sampled
    greedy = tokens(thinking="greedy")
    assert sum(sampled[name] != greedy[name] for name in sampled) > 10
