"""Bad settings of the command line, and whole commands with bad parameters: refused before torch is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.edits import instead
from graph import copy_repository
from imports import ROOT

from qthink_core.errors import ParamError
from qthink_core.planning.settings import checked_with

SETTINGS = [
    (["K=$(touch canary)"], ["K is '$(touch canary)': input should be a valid integer"]),
    (["K=`touch canary`"], ["the value is not valid YAML at line 1, column 1: found character '`'"]),
    (["K=!!python/object/apply:os.system [touch canary]"], ["the value has the tag !!python/object/apply:os.system"]),
    (["K=" + "[" * 5_000], ["the value is nested deeper than 20 levels"]),
    (["K=" + "9" * 5_000], ["K is '999"]),
    (["K='6'"], ["K is '6': input should be a valid integer"]),
    (["K="], ["K is None: input should be a valid integer"]),
    (["K=1\nseed: 2"], ["is not a setting: expected key=value"]),
    (["K=\udcff"], ["the value is not UTF-8 at line 1 (byte 0xff)"]),
    (["K.x=1"], ["K.x is missing from the params files"]),
    (["+K.x=1"], ["K is {'x': 1}: input should be a valid integer"]),
    (["+.x=1"], ["no stage reads ''.x: remove it"]),
    (["К=6"], ["-S 'К=6': К is missing from the params files"]),
    (["gama=1"], ["gama is missing from the params files; did you mean gamma?"]),
    (["rollout={G: 1, G: 2}"], ["the value has a doubled key at line 1: 'G'"]),
    (["rollout={<<: {G: 1}}"], ["the value has a merge key (<<)"]),
    (["train.lr='1e-05'"], ["train.lr is '1e-05': input should be a valid number"]),
    (["scale=../tiny"], ["--scale is '../tiny': expected one of the files in params/", "scale has the name '../tiny'"]),
    (["scale=smol", "scale=tiny", "params/smol.yaml:device=cpu"], ["device is in params/tiny.yaml"]),
    (["tasks={1: 2}"], ["tasks is {1: 2}: input should be a valid list"]),
    (["params/tiny.yaml:device=?"], ["device is {None: None}: input should be 'cpu' or 'cuda'"]),
    (["tasks=[gsm8k, gsm8k]"], ["tasks is ['gsm8k', 'gsm8k']: each must appear once"]),
    (["prepare.folder=$(touch canary)"], ["prepare.folder is '$(touch canary)': expected a name without '$': rename it"]),
    (
        ["~K", "gamma=.nan", "lr=2", "params/tiny.yaml:device=gpu"],
        ["K is missing", "gamma is nan", "lr is missing", "device is"],
    ),
]


@pytest.mark.parametrize(("settings", "said"), SETTINGS, ids=lambda one: " ".join(one)[:40])
def test_wrong_settings_of_the_command_line_are_refused_at_once(settings: list[str], said: list[str]) -> None:
    with pytest.raises(ParamError) as found:
        checked_with(ROOT, None, settings)
    lines = str(found.value).split("\n") if "\n" not in settings[0] else [str(found.value)]
    assert len(lines) == len(said)
    assert [part for part in said if not any(part in one for one in lines)] == []


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which torch and all that is as heavy end the process that imports them."""
    root = copy_repository(tmp_path_factory.mktemp("bad") / "repository")
    (root.parent / "traps").mkdir()
    for heavy in ("torch", "transformers", "peft", "accelerate", "datasets"):
        (root.parent / "traps" / f"{heavy}.py").write_text(f"raise SystemExit('{heavy} was imported')\n")
    return root


COMMANDS = {
    "qthink run": ["run", "--seeds", "3,4"],
    "qthink plan": ["plan", "-S", "K=$(touch canary)"],
    "qthink preflight": ["preflight"],
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_bad_parameters_before_torch_and_writes_and_runs_nothing(repository: Path, command: str) -> None:
    words = [sys.executable, "-m", "qthink_core.cli", *COMMANDS[command]]
    text = (ROOT / "params.yaml").read_bytes()
    text = instead(b"\ngamma: 2.0", b"\ngama: 2.0")(instead(b"  folder: data ", b"  folder: $(touch canary) ")(text))
    (repository / "params.yaml").write_bytes(text)
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*") if "__pycache__" not in path.parts}
    environment = os.environ | {"PYTHONPATH": str(repository.parent / "traps")}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run(words, cwd=repository, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == ParamError.exit_code == 2
    assert done.stdout == ""
    own = [line for line in done.stderr.splitlines() if "this program uses the code in" not in line]
    assert all(line.startswith("qthink: ") for line in own)
    for part in ("no stage reads gama: did you mean gamma?", "prepare.folder is '$(touch canary)'", "gamma is missing"):
        assert part in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in repository.rglob("*") if "__pycache__" not in path.parts}
