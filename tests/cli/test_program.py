"""The program itself: its help, its version, completion in a shell, and the folders in which its commands work."""

import io
import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NoReturn

import pytest
from imports import ROOT

from qthink_core.cli import __main__ as cli
from qthink_core.cli.program import CHECK, MODEL, PIPELINE, one_line
from qthink_core.errors import DataError

PROGRAM = [sys.executable, "-P", "-m", "qthink_core.cli"]
IN_REPOSITORY = {
    "plan": ["plan"],
    "preflight": ["preflight"],
    "run": ["run", "--jobs", "1"],
    "repair": ["repair"],
    "compare": ["compare"],
    "csv": ["csv", "gsm8k", "uniform"],
    "export": ["export", "gsm8k", "uniform", "published"],
    "figures": ["figures"],
}


def program(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80", "TERM": "dumb"} | variables
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.mark.parametrize("command", [one.callback for one in cli.app.registered_commands], ids=lambda one: one.__name__)
def test_the_help_of_every_command_has_an_example_of_it(command: Any) -> None:
    example = (command.__doc__ or "").split("```")[1]
    assert f"qthink {command.__name__}" in example


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with the graph and the params files alone."""
    shutil.copytree(ROOT / "params", tmp_path / "repository/params")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / "repository" / name)
    return tmp_path / "repository"


def test_the_help_lists_every_command_in_its_group_and_says_how_completion_is_installed() -> None:
    done = program("--help", cwd=ROOT)
    listed = re.findall(r"^\W+([a-z]+)  ", done.stdout, re.MULTILINE)
    assert [word for word in listed if word in IN_REPOSITORY] == list(IN_REPOSITORY)
    places = [done.stdout.find(one) for one in (MODEL, PIPELINE, CHECK) if one in done.stdout]
    assert places == sorted(places)
    assert "--install-completion" in done.stdout
    assert {str(one.rich_help_panel) for one in cli.app.registered_commands} <= {MODEL, PIPELINE, CHECK}


def test_the_version_is_that_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    done = program("--version", cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"qthink {version}\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_a_script_that_completes_commands_and_options(shell: str, tmp_path: Path) -> None:
    shim = tmp_path / "qthink"
    shim.write_text(f"#!{sys.executable}\nfrom qthink_core.cli.__main__ import main\nmain()\n")
    shim.chmod(0o755)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}

    def asked(*arguments: str, **variables: str) -> str:
        command = [str(shim), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment | variables).stdout

    assert f"_QTHINK_COMPLETE=complete_{shell}" in asked("--show-completion", shell)
    typed = {"COMP_WORDS": "qthink gra", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "qthink gra"}
    if shell == "fish":
        typed["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    assert "grade" in asked(_QTHINK_COMPLETE=f"complete_{shell}", **typed)


@pytest.mark.slow
@pytest.mark.parametrize("command", IN_REPOSITORY)
def test_outside_the_repository_a_command_of_the_pipeline_is_one_line(command: str, tmp_path: Path) -> None:
    done = program(*IN_REPOSITORY[command], cwd=tmp_path)
    said = f"no folder from {tmp_path} upwards has params.yaml and dvc.yaml: run this in the QThink repository"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"qthink: {said}\n")


def test_every_command_of_the_group_is_looked_at_here() -> None:
    assert set(IN_REPOSITORY) == {
        one.callback.__name__ for one in cli.app.registered_commands if one.callback and one.rich_help_panel == PIPELINE
    }


@pytest.mark.slow
def test_in_a_folder_of_the_repository_a_command_works_as_in_its_root_and_says_where(root: Path) -> None:
    (root / "docs/pages").mkdir(parents=True)
    (root / "docs/dvc.yaml").write_text("stages: {}\n")  # alone it makes no repository
    above, below = (program("plan", "--json", cwd=folder) for folder in (root, root / "docs/pages"))
    assert above.stderr == ""
    assert below.stderr == f"qthink: working in {root}; paths are relative to it\n"
    assert (below.returncode, below.stdout) == (above.returncode, above.stdout)


@pytest.mark.slow
def test_a_program_that_was_installed_elsewhere_says_whose_code_it_runs(root: Path) -> None:
    (root / "qthink_core").mkdir()
    done = program("plan", "--json", cwd=root)
    assert done.stderr == (
        f"qthink: this program uses the code in {ROOT}, not that in {root}: run `python -m qthink_core.cli` in place of "
        "`qthink` to use the repository's\n"
    )


def test_a_folder_that_was_removed_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = f'cd {gone} && rmdir {gone} && exec "$@"'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = ["sh", "-c", shell, "sh", *PROGRAM, "plan"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    said = "qthink: the current folder was removed: change to the repository and run this again\n"
    assert (done.returncode, done.stderr) == (2, said)


def interrupted_import(error: type[Exception]) -> NoReturn:
    """What Python 3.11 makes of Ctrl-C while a class is made, and a library of that."""

    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    try:
        type("Own", (), {"its": type("Name", (), {"__set_name__": interrupted})()})
    except RuntimeError as found:
        raise error("a library's") from found
    raise AssertionError


def test_a_ctrl_c_that_is_wrapped_in_another_exception_is_said_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []

    def end(code: int) -> NoReturn:
        ended.append(code)
        raise SystemExit

    monkeypatch.setattr("qthink_core.cli.program.end", end)
    for continues, around in itertools.product((False, True), (RuntimeError, DataError)):
        with pytest.raises(SystemExit), one_line(continues):
            interrupted_import(around)
    assert ended == [130, 130, 75, 75]
    with pytest.raises(ZeroDivisionError), one_line():
        1 / 0  # noqa: B018


def test_a_character_that_the_terminal_lacks_is_printed_as_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = "a \u2192 b"
    raw = io.BytesIO()
    terminal = io.TextIOWrapper(raw, encoding="latin-1")
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr(cli, "app", lambda: print(printed))
    cli.main()
    terminal.flush()
    assert raw.getvalue() == rb"a \u2192 b" + b"\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionResetError("the server hung up"), "reading or writing failed (the server hung up): fix this"),
        (OSError(28, "No space left on device"), "reading or writing failed (No space left on device): fix this"),
        (OSError(28, "No space left on device", "out.jsonl"), "out.jsonl failed (No space left on device): fix this"),
    ],
)
def test_an_error_of_the_system_is_one_line_with_its_reason(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Ended(Exception):
        pass

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr("qthink_core.cli.program.end", end)
    with pytest.raises(Ended, match=r"^74$"), one_line():
        raise error
    assert capsys.readouterr().err == f"qthink: {said} and run the same command again\n"
