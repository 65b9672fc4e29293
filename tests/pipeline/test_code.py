"""What the code of a stage is: which modules, and what each of them says."""

import ast
import json
import os
import subprocess
import sys
from modulefinder import ModuleFinder
from pathlib import Path

import pytest
from graph import copy_repository
from imports import ROOT

from qthink_core.artifacts import files
from qthink_core.errors import DataError
from qthink_core.pipeline import code, layout

PAGES = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")
SOURCE = '''\
"""A module."""

import json  # to write

LIMIT = 3


class Row:
    """A row."""

    name: str = "a"


def text(row):
    """The row as text."""
    return json.dumps({"name": f"{row.name!r:>{LIMIT}}", "of": (1, 2.5, None)}, indent=1)
'''
# Made with Python 3.11, 3.12 and 3.13: another version must not rerun everything.
SAID = "e650818b379c89db67445a958b22f44d76b68c7edea82f983620423cc147bc87"
# The whole stage, with the imports of all pages, took 0.6 s of the processor.
MAX_CPU_S = 1.5


def said(tmp_path: Path, text: str) -> str:
    (tmp_path / "module.py").write_text(text)
    return code.read(tmp_path / "module.py").digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # to write", ""),
        ("LIMIT = 3\n", "\n\nLIMIT = (\n    3\n)\n"),
        ('"""A module."""\n', ""),
        ('"""A row."""', "'''One\n    row.'''"),
        ('    """The row as text."""\n', ""),
        ('"of": (1, 2.5, None)}, indent=1', "'of': (1, 2.50, None,)},\n        indent = 0x1"),
    ],
    ids=["comment", "lines", "docstring of a module", "of a class", "of a function", "spelling"],
)
def test_what_the_machine_does_not_see_changes_no_digest(tmp_path: Path, old: str, new: str) -> None:
    assert SOURCE.count(old) == 1
    assert said(tmp_path, SOURCE.replace(old, new)) == SAID


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("LIMIT = 3", "LIMIT = -3"),
        ("LIMIT = 3", "LIMIT: 3"),
        ("import json", "import json as json"),
        ("import json", "import ujson as json"),
        ('name: str = "a"', 'name: str = b"a"'),
        ('name: str = "a"', "name: str = a"),
        ("!r:>", "!s:>"),
        ("(1, 2.5, None)", "[1, 2.5, None]"),
        ("(1, 2.5, None)", "(1, 2.5)"),
        ("    return", "    return 1\n    return"),
        ("def text(row):", "def text(row, /):"),
        ("def text(row):", "async def text(row):"),
        ('"""The row as text."""', 'row = "The row as text."'),
    ],
)
def test_every_change_of_a_statement_changes_the_digest(tmp_path: Path, old: str, new: str) -> None:
    assert SOURCE.count(old) == 1
    assert said(tmp_path, SOURCE.replace(old, new)) != SAID


def test_a_text_that_is_no_docstring_counts(tmp_path: Path) -> None:
    assert said(tmp_path, 'x = 1\n"text"\n') != said(tmp_path, 'x = 1\n"other"\n')
    assert said(tmp_path, 'if x:\n    "text"\n') != said(tmp_path, 'if x:\n    "other"\n')


@pytest.mark.parametrize("stage", PAGES)
def test_the_modules_of_a_stage_are_those_that_the_standard_librarys_finder_finds(stage: str) -> None:
    """It reads compiled code, where this project reads the source; both follow imports inside functions."""
    finder = ModuleFinder(path=[str(ROOT)])
    finder.run_script(str(ROOT / "stages" / f"{stage}.py"))
    found = {str(Path(one.__file__).relative_to(ROOT)) for one in finder.modules.values() if one.__file__}
    reached = set(code.modules(ROOT, f"stages/{stage}.py"))
    worker = {"qthink_core/benchmarks/graders/latex_worker.py"}  # which is run as a program
    assert reached - found == (worker if "qthink_core/benchmarks/graders/math500.py" in reached else set())
    assert found <= reached


@pytest.mark.parametrize("stage", PAGES)
def test_no_module_of_a_stage_reads_a_docstring_or_a_source_since_they_do_not_count(stage: str) -> None:
    for path in code.modules(ROOT, f"stages/{stage}.py"):
        assert "inspect" not in code.read(ROOT / path).imports, path
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            assert "__doc__" not in (getattr(node, "attr", ""), getattr(node, "id", ""), getattr(node, "value", "")), path


def test_what_only_refuses_is_no_code_of_a_stage() -> None:
    assert not any("qthink_core/planning/preflight.py" in code.of_stage(ROOT, stage) for stage in PAGES)


def test_files_that_are_no_modules_are_code_of_the_stages_that_reach_their_reader() -> None:
    page = {f"qthink_core/report/templates/{path.name}" for path in (ROOT / "qthink_core/report/templates").iterdir()}
    assert page
    for stage in PAGES:
        assert {path for path in code.of_stage(ROOT, stage) if not path.endswith(".py")} == (
            page if stage == "report" else set()
        )


def small(root: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = root / name.replace("__", "/", 1)
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".py").write_text(text)
    return root


def test_an_import_that_leads_elsewhere_changes_which_modules_count(tmp_path: Path) -> None:
    root = small(tmp_path, stages__go="from qthink_core import a\n", qthink_core__a="", qthink_core__b="import os\n")
    assert list(code.of_stage(root, "go")) == ["qthink_core/a.py", "stages/go.py"]
    small(tmp_path, stages__go="def run():\n    from qthink_core.b import a\n")
    assert list(code.of_stage(root, "go")) == ["qthink_core/b.py", "stages/go.py"]
    small(tmp_path, qthink_core__b="import qthink_core.a, numpy\n")
    assert list(code.of_stage(root, "go")) == ["qthink_core/a.py", "qthink_core/b.py", "stages/go.py"]


def test_a_source_that_is_missing_or_no_python_is_told_in_a_line(tmp_path: Path) -> None:
    root = small(tmp_path, stages__go="x =\n")
    with pytest.raises(DataError, match=r"stages/go\.py cannot be read as Python \(line 1: invalid syntax\): fix it$"):
        code.of_stage(root, "go")
    with pytest.raises(DataError, match=r"stages/gone\.py is missing: restore it with `git checkout .*stages/gone\.py`$"):
        code.of_stage(root, "gone")


def test_a_record_is_accepted_as_it_was_written_and_else_what_differs_is_named(tmp_path: Path) -> None:
    now = {"a.py": "1", "b.py": "2"}
    (path,) = code.write(tmp_path, {"go": now})
    assert path.read_bytes() == files.canonical_json(now)
    code.check(path, now)
    for other, named in ({**now, "b.py": "3"}, "b.py"), ({"a.py": "1"}, "b.py"), ({**now, "c.py": "3"}, "c.py"):
        with pytest.raises(DataError, match=rf"go\.json records another version of {named}: run `dvc repro`, or "):
            code.check(path, other)
    path.write_bytes(b"{")
    with pytest.raises(DataError, match=rf"go\.json is damaged \(is not JSON .*\): run `qthink repair {tmp_path}`$"):
        code.check(path, now)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=rf"go\.json is damaged \(is not a regular file\): run `qthink repair {tmp_path}`$"):
        code.check(path, now)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the time that a process took")
def test_the_stage_writes_the_code_of_every_other_stage_in_little_time_and_twice_the_same(tmp_path: Path) -> None:
    root = copy_repository(tmp_path)
    written = []
    for _ in range(2):
        started = subprocess.Popen(
            [sys.executable, "-m", "stages.fingerprint"], cwd=root, env=os.environ | {"DVC_STAGE": "fingerprint"}
        )
        _, status, used = os.wait4(started.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert used.ru_utime + used.ru_stime < MAX_CPU_S
        written.append({path.name: path.read_bytes() for path in (root / layout.CODE).iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {f"{stage}.json" for stage in PAGES if stage != "fingerprint"}
    assert all(json.loads(text) == code.of_stage(ROOT, name.removesuffix(".json")) for name, text in written[0].items())
