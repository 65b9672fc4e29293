"""CONTRIBUTING.md: every diff in it applies to this repository, and what comes out passes the checks that it names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from graph import copy_repository
from imports import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in TEXT.split("\n## ")[1:]}
CHECKED = """
from pathlib import Path
from qthink_core.pipeline import checks, graph, parameters
tree, origin = parameters.load(Path())
found = checks.faults(tree, origin, graph.parameter_classes())
assert found == [], found
"""
MARKED = """
from qthink_core.evidence import fairness
from qthink_core.report.params import settings
report = graph.parameter_classes()["report"]
rows = settings(report.model_validate(parameters.prune(tree, parameters.patterns(report))))
assert fairness.marks(rows)["{system}"] == ["{footnote}"]
"""
GRADED = """
from qthink_core.benchmarks import graders, problems
from qthink_core.benchmarks.data_entries import Entry
entry = Entry.model_validate(tree["data"]["ages"])
made = problems.gather("ages", entry, "folder", "data", 2, 0, 2, 0, 0, None)
assert made.about["benchmark"] == "ages"
for found in (made.splits["train"], made.splits["test"]):
    assert len(found) == 2
    assert all(graders.grade("ages", one.gold, graders.grader("ages").gold_answer(one)).verdict == "right" for one in found)
assert graders.grade("ages", "7", "<think>3 + 4</think>She will be 8.").verdict == "wrong"
"""


def blocks(section: str, language: str) -> list[str]:
    """The code blocks of a section in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTIONS[section], re.MULTILINE | re.DOTALL)


def applied(section: str, to: Path) -> Path:
    """A copy of the repository with the one diff of a section."""
    root = copy_repository(to)
    (diff,) = blocks(section, "diff")
    done = subprocess.run(["git", "apply", "-"], cwd=root, input=diff, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"CONTRIBUTING.md, {section}: {done.stderr}"
    return root


def run(root: Path, *arguments: str) -> None:
    """Python in a copy, which sees the copy's own modules."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "tests"),
    [("A distance", "tests/method/test_losses.py"), ("A position rule", "tests/method/test_positions.py")],
)
def test_a_change_of_the_method_passes_the_tests_that_come_with_it_and_the_checks_of_the_params(
    section: str, tests: str, tmp_path: Path
) -> None:
    root = applied(section, tmp_path)
    (new,) = re.findall(r'^\+.*Literal\[.*, "(\w+)"\]$', SECTIONS[section], re.MULTILINE)
    assert new in (root / "params.yaml").read_text()
    run(root, "-c", CHECKED)
    run(root, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests)


@pytest.mark.slow
def test_a_row_with_a_distance_of_its_own_is_accepted_and_marked_as_the_page_says(tmp_path: Path) -> None:
    root = applied("A distance", tmp_path)
    ((row,), params) = blocks("A distance", "yaml"), root / "params.yaml"
    text = (
        params.read_text().replace("  distance: huber ", "  distance: l1 ").replace("  trained: [", f"    {row}  trained: [")
    )
    params.write_text(text.replace("final_step]", f"final_step, {row.partition(':')[0]}]"))
    (footnote,) = re.findall(r'^The footnote of the table says "(.*)"\.$', SECTIONS["A distance"], re.MULTILINE)
    run(root, "-c", CHECKED + MARKED.format(system=row.partition(":")[0], footnote=footnote))


@pytest.mark.slow
def test_a_benchmark_of_ones_own_is_read_and_graded_and_is_a_task_of_the_params(tmp_path: Path) -> None:
    root = applied("A benchmark", tmp_path)
    (rows,) = blocks("A benchmark", "json")
    (root / "data/ages").mkdir(parents=True, exist_ok=True)
    (root / "data/ages/test.jsonl").write_text(rows)
    (root / "data/ages/train.jsonl").write_text(rows.replace("Ann", "Eve").replace("Bob", "Tom"))
    run(root, "-c", CHECKED + GRADED)


@pytest.mark.slow
def test_a_base_model_of_ones_own_is_a_choice_of_the_params(tmp_path: Path) -> None:
    root = applied("A base model", tmp_path)
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("scale: tiny ", "scale: paper "))
    run(root, "-c", CHECKED + "assert tree['base'] == {'thinking': 'native', 'folder': 'bases/my-base'}")


def test_files_that_the_page_names_are_there() -> None:
    named = re.findall(r"\]\((?!#)([^)\s]+)\)", TEXT) + re.findall(r"(?<=[` ])tests/[\w/]+\.py", TEXT)
    assert len(named) > 8
    assert not [name for name in named if not (ROOT / name).exists()]
