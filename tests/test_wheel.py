"""The wheel in an environment of its own, in a folder that is no repository: what it holds, and what `qthink` does there."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from imports import OURS, ROOT

# The arguments of each command that needs the repository.
IN_REPOSITORY = (
    ("plan",),
    ("preflight",),
    ("run",),
    ("compare",),
    ("csv", "gsm8k", "uniform"),
    ("export", "gsm8k", "uniform", "published"),
    ("figures",),
)
Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources: `build/` of an earlier one would end up in it."""
    place = tmp_path_factory.mktemp("wheel")
    for name in OURS:
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, place / name)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=place, check=True, capture_output=True, text=True)
    return place / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The `qthink` that pip installs from the wheel, beside the packages of this environment, in an empty folder."""
    place = tmp_path_factory.mktemp("clean")
    python = place / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", "--no-compile", str(wheel)], check=True)
    (site,) = (place / "venv/lib").glob("python*/site-packages")
    # other packages follow those of the wheel; .pth files in their folders, such as that of this checkout, are not read
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "others.pth").write_text("\n".join(others) + "\n")
    (place / "empty").mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "QTHINK_"))}

    def run(*arguments: str, text: str = "", command: str = "qthink") -> subprocess.CompletedProcess[str]:
        line = [str(python.with_name(command)), *arguments]
        return subprocess.run(line, input=text, capture_output=True, text=True, cwd=place / "empty", env=clean)

    return run


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *OURS]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


@pytest.mark.slow
def test_the_installed_program_has_its_own_code_help_version_and_grader(program: Program) -> None:
    where = "import qthink_core, stages; print(qthink_core.__file__, stages.__file__)"
    done = program("-c", where, command="python")
    assert done.stdout.count("venv/lib") == 2, done
    assert program("--version").stdout.startswith("qthink 0")
    assert all(command[0] in program("--help").stdout for command in IN_REPOSITORY)
    line = '{"gold": "18", "answer": "It is 18."}\n'
    done = program("grade", "--benchmark", "gsm8k", text=line)
    assert (done.returncode, done.stdout) == (0, '{"verdict": "right", "extracted": "18", "details": {}}\n')
    assert done.stderr.startswith("qthink: 1 answer: 100.0 % right")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", IN_REPOSITORY, ids=lambda arguments: arguments[0])
def test_a_command_that_needs_the_repository_says_so_in_one_line(arguments: tuple[str, ...], program: Program) -> None:
    done = program(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("qthink: no folder from ")
    assert done.stderr.endswith(" has params.yaml and dvc.yaml: run this in the QThink repository\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_checkpoint_is_asked_and_audited_without_the_repository(program: Program, tmp_path: Path) -> None:
    from checkpoints import exported
    from lively import lively_qwen3
    from worlds import STYLE, WORLD

    from qthink_core.method.projection_head import ProjectionHead
    from qthink_core.models.tiny_tokenizer import build

    tokenizer = build(WORLD, STYLE)
    folder = exported(tmp_path / "model", lively_qwen3(tokenizer), tokenizer, ProjectionHead(32))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "Who?", "answer": "#### 1"}\n{"question": "Why?", "answer": "#### 2"}\n')
    common = ("--max-new-tokens", "2", "--device", "cpu")
    assert program("ask", str(folder), "Who?", *common).returncode == 0
    out = tmp_path / "out"
    done = program("audit", str(folder), "--benchmark", "gsm8k", "--data", str(rows), *common, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert {"verdicts.jsonl", "audit.html"} <= {file.name for file in out.iterdir()}
