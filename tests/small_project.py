"""Copies of the project's code and settings with a tiny base model and a few problems, to run stages for real."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graph import fingerprint
from imports import ROOT
from worlds import WORLD

from qthink_core.artifacts import prepared
from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.store import Work
from qthink_core.benchmarks.problems import generated
from qthink_core.benchmarks.rendering import prompted
from qthink_core.pipeline import layout, parameters

TASK, N, BLOCK, G = "gsm8k", 32, 2, 4


def put(place: Path, artifact: str, files: Mapping[str, Writer | bytes]) -> None:
    """An artifact of these files; problems are said to be generated ones of the task."""
    work = Work(Path(".work", artifact), "0" * 64, "settings", {})
    work.commit("unit", files)
    work.publish(place, artifact, ["unit"], {"benchmark": TASK, "source": "generated"} if artifact == "problems" else None)


def make(root: Path, model: Any, tokenizer: Any) -> Path:
    """A project in a new folder, with blocks of a few rollouts, as far as `prepare`."""
    for folder in ("stages", "qthink_core", "params"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / file, root / file)
    fingerprint(root)
    scale, tree = root / "params" / "tiny.yaml", root / "params.yaml"
    scale.write_text(re.sub(r"block_problems: \d+", f"block_problems: {BLOCK}", scale.read_text()))
    tree.write_text(re.sub(r"\bG: \d+", f"G: {G}", tree.read_text()))
    assert parameters.load(root)[0]["sample"]["block_problems"] == BLOCK
    with contextlib.chdir(root):
        model.save_pretrained("base")
        tokenizer.save_pretrained("base")
        put(layout.BASE, "base", {path.name: path.read_bytes() for path in Path("base").iterdir()})
        rows = prompted(TASK, generated(TASK, "train", N, seed=3, world=WORLD), tokenizer)
        # A model of random weights opens no block: the prompt does.
        think = tokenizer.convert_tokens_to_ids("<think>")
        rows = [row | {"prompt_thinking": [*row["prompt_thinking"], think]} for row in rows]
        put(layout.problems(TASK), "problems", {"train.parquet": prepared.writer(rows)})
    return root


def start(root: Path, stage: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """A stage of the project as DVC starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=root,
        env=os.environ | environment | {"DVC_STAGE": f"{stage}@{TASK}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def units(root: Path, stage: str) -> dict[str, int]:
    """The committed units of a stage and the inodes of their records: a unit that is committed again has another."""
    return {path.name: path.stat().st_ino for path in root.glob(f".work/{stage}@{TASK}/*/*.unit.json")}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
