"""docs/own.md: its commands, run on a copy of the repository with a model of a few thousand weights."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import forked
import pytest
from graph import copy_repository
from imports import ROOT
from tiny_folders import plain_tokenizer, save

from qthink_core.artifacts import store
from qthink_core.benchmarks.graders import Grader
from qthink_core.pipeline import parameters

PAGE = (ROOT / "docs/own.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}


def commands(section: str) -> list[str]:
    """The lines of the section's blocks marked `sh`, without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", SECTIONS[section], re.MULTILINE | re.DOTALL)
    return [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]


def run(line: str, root: Path) -> subprocess.CompletedProcess[str]:
    """A command of the page in a copy, with the programs of this environment; `qthink` in a fork of this process."""
    variables = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(root), os.environ["PYTHONPATH"]]),
        "HF_HUB_OFFLINE": "1",
        "DVC_SITE_CACHE_DIR": str(root.parent / "site"),
    }
    program, *words = shlex.split(line)
    if program == "qthink":
        done = forked.qthink(*words, cwd=root, variables=variables)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    return subprocess.run(
        [program, *words], cwd=root, env=os.environ | variables, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_model_in_a_folder_is_planned_checked_and_taken_in_by_the_commands_of_the_page(tmp_path: Path) -> None:
    root = copy_repository(tmp_path / "copy")
    for line in ("git add --all", "git -c user.name=a -c user.email=a@b commit --quiet --message start"):
        assert run(line, root).returncode == 0
    for key in ("name", "email"):
        run(f"git config user.{key} someone", root)
    tokenizer = plain_tokenizer()
    save(root / "bases/mine", tokenizer)
    tokenizer.save_pretrained(root / "bases/mine")
    copy, plan, preflight, take = commands("Your model")
    assert run(copy, root).returncode == 0
    mine = root / "params/mine.yaml"
    (base,) = re.findall(r"^```yaml\n(.*?)^```$", SECTIONS["Your model"], re.MULTILINE | re.DOTALL)
    text, n = re.subn(r"^base:.*\n(?: .*\n)+", base, mine.read_text(), flags=re.MULTILINE)
    assert n == 1
    mine.write_text(text)
    assert parameters.read_yaml(mine)["base"] == {"thinking": "added", "folder": "bases/mine"}
    planned = run(plan, root)
    assert planned.returncode == 0, planned.stderr
    assert "on this machine's processor" in planned.stdout
    checked = run(preflight, root)
    assert checked.returncode == 0, checked.stderr
    assert "base model: bases/mine" in checked.stdout
    taken = run(take, root)
    assert taken.returncode == 0, taken.stderr
    about = store.read_manifest(root / "artifacts/base").about
    assert about["source"] == {"thinking": "added", "folder": "mine"}
    assert about["architecture"] == "LlamaForCausalLM"
    assert not [file for file in (root / "artifacts/base").iterdir() if str(root).encode() in file.read_bytes()]


def test_the_names_of_a_grader_on_the_page_are_those_of_its_interface() -> None:
    table = re.findall(r"^\| `(\w+)` \|", SECTIONS["Your benchmark"], re.MULTILINE)
    assert table == [*get_type_hints(Grader), *(name for name in vars(Grader) if not name.startswith("_"))]
