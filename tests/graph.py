"""The graph as dvc.yaml and the params files declare it, and copies of the repository to try things on."""

import itertools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from imports import OURS, ROOT

from qthink_core.pipeline import code as source
from qthink_core.pipeline import layout, parameters
from qthink_core.pipeline.graph import FOLDER, Box, resolve
from qthink_core.pipeline.graph import boxes as of_stage

STAGES: dict[str, dict[str, Any]] = parameters.read_yaml(ROOT / "dvc.yaml")["stages"]
SCALES = sorted(path.stem for path in (ROOT / "params").glob("*.yaml"))


@cache
def tree_of(scale: str) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """What `parameters.load` returns once params.yaml names another scale."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "params", Path(folder) / "params")
        text = re.sub(r"^scale: \w+", f"scale: {scale}", (ROOT / "params.yaml").read_text(), flags=re.MULTILINE)
        (Path(folder) / "params.yaml").write_text(text)
        return parameters.load(Path(folder))


def boxes(stage: str, tree: Mapping[str, Any]) -> list[Box]:
    """Every box of a stage: the product of its matrix."""
    return of_stage(stage, STAGES[stage], tree)


def outputs(stage: str) -> list[str]:
    """The paths that a stage declares to make, metrics and plots among them, with their `${...}`."""
    entries = itertools.chain.from_iterable(STAGES[stage].get(kind, []) for kind in ("outs", "metrics", "plots"))
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def code(stage: str) -> list[str]:
    """The deps of a stage that say what its code is: our packages, or what `fingerprint` wrote of them."""
    return [dep for dep in STAGES[stage]["deps"] if dep in OURS or Path(dep).parent == layout.CODE]


def inputs(stage: str) -> list[str]:
    """The other deps: the artifacts that it reads, with their `${...}`; not the user's own folder."""
    return [dep for dep in STAGES[stage]["deps"] if dep not in (*code(stage), f"${{{FOLDER}}}")]


def resolved(paths: list[str], at: Box, tree: Mapping[str, Any]) -> list[str]:
    """Paths of dvc.yaml for one box."""
    return [resolve(path, at, tree) for path in paths]


def fingerprint(root: Path) -> None:
    """Writes what the code of a copy says, as the stage `fingerprint` would."""
    source.write(root / layout.CODE, {stage: source.of_stage(root, stage) for stage in STAGES if stage != source.STAGE})


def copy_repository(to: Path) -> Path:
    """A copy of the files that Git knows or would add, as a Git repository of its own without a commit."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    for name in names:
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, to / name)
    subprocess.run(["git", "init", "--quiet"], cwd=to, check=True)
    return to
