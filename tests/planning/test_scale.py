"""docs/scale.md: its commands are those that the program takes, and its quoting is right."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from graph import tree_of
from imports import ROOT

from qthink_core.planning import source_checks
from qthink_core.planning.settings import checked_with
from qthink_core.planning.source_checks import Check

PAGE = (ROOT / "docs/scale.md").read_text()


def block(first: str) -> str:
    """The fenced block of the page that has this text."""
    (found,) = [text for text in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if first in text]
    return str(found)


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("machine", [0, 3])
def test_the_launcher_of_the_slurm_script_starts_accelerate_on_each_machine_with_its_number(
    tmp_path: Path, machine: int
) -> None:
    """With stand-ins for both: srun runs its command as on one machine, accelerate says what it was given."""
    program(tmp_path, "srun", f'while [[ $1 == --* ]]; do shift; done; SLURM_NODEID={machine} exec "$@"')
    program(tmp_path, "accelerate", 'printf "%s " "$@"')
    export = re.search(r'^export QTHINK_LAUNCH=".*?^[^"]*(?:\\"[^"]*)*"$', block("SBATCH"), re.DOTALL | re.MULTILINE)
    assert export
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HEAD": "node-17"}
    shell = f'{export[0]}\nprintf %s "$QTHINK_LAUNCH"'
    launch = subprocess.run(["bash", "-c", shell], env=environment, capture_output=True, text=True, check=True).stdout
    command = [*shlex.split(launch), "-m", "stages.train"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.split() == [
        *("launch", "--multi_gpu", "--same_network", "--num_machines", "4", "--num_processes", "32"),
        *("--machine_rank", str(machine), "--main_process_ip", "node-17", "--main_process_port", "29500"),
        *("-m", "stages.train"),
    ]


def test_accelerate_knows_every_option_of_the_page() -> None:
    from accelerate.commands.launch import launch_command_parser

    known = {option for action in launch_command_parser()._actions for option in action.option_strings}
    named = {option for line in PAGE.splitlines() if "--num_processes" in line for option in re.findall(r"--[a-z_]+", line)}
    assert {"--multi_gpu", "--num_processes", "--machine_rank"} <= named
    assert named - known <= {"--overlap", "--nodes", "--ntasks"}


@pytest.mark.slow
def test_the_programs_commands_are_what_the_page_says() -> None:
    named = re.findall(r"^(qthink .*?)\s*#", PAGE, re.MULTILINE)
    assert [line.split()[1] for line in named] == ["plan", "preflight"] * 2
    for line in named:
        _, command, *options = shlex.split(line)
        done = subprocess.run(
            [sys.executable, "-m", "qthink_core.cli", command, "--help"],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        assert all(option in done.stdout for option in options if option.startswith("-"))


def test_the_revision_of_the_page_is_that_of_the_params() -> None:
    hub = tree_of("paper")[0]["base"]["hub"]
    assert f"hf download {hub['repo']} --revision {hub['revision']}" in PAGE


RUNS = [text for text in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if re.search("^dvc exp run -S", text, re.MULTILINE)]


@pytest.mark.parametrize("text", RUNS)
def test_a_run_of_the_page_names_known_parameters_and_data_that_can_be_had(text: str) -> None:
    (line,) = re.findall("^dvc exp run -S.*$", text, re.MULTILINE)
    words = shlex.split(line)
    assert words[3::2] == ["-S"] * len(words[3::2])
    tree = checked_with(ROOT, None, words[4::2])  # of a key that nobody knows it raises
    assert tree["scale"] in ("paper", "small")
    # Without a folder of its own, a run has to be of tasks that the hub has.
    missing = [one.text for one in source_checks.data(tree) if isinstance(one, Check)]
    assert [text for text in missing if not text.startswith("/shared/data/")] == []
