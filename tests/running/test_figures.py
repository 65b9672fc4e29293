"""The figures of README.md: drawn from results/ and dvc.yaml, the same bytes, refused where those are not whole."""

import csv
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from imports import ROOT

from qthink_core.errors import DataError
from qthink_core.report.params import SYSTEM_NAMES
from qthink_core.running import figures

RESULTS = ROOT / "results"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RESULTS, tmp_path / "results"))


def test_the_committed_figure_is_drawn_from_the_committed_results() -> None:
    assert (ROOT / figures.ACCURACY).read_bytes() == figures.accuracy(RESULTS), "run `qthink figures`"


def test_the_figure_has_a_panel_for_each_benchmark_and_every_system_in_its_legend() -> None:
    texts = [element.text for element in ElementTree.fromstring(figures.accuracy(RESULTS)).iter(f"{SVG}text")]
    found = json.loads((RESULTS / "accuracy.json").read_bytes())
    assert [one for one in texts if one in found] == list(found)
    systems = {SYSTEM_NAMES[system] for row in found.values() for system in row}
    assert {one for one in texts if one in SYSTEM_NAMES.values()} == systems
    assert sum(one in systems for one in texts) == len(systems)


def test_a_further_test_set_is_not_in_the_figure(results: Path) -> None:
    tokens = results / "tokens.csv"
    row = next(line for line in tokens.read_text().splitlines() if line.startswith("gsm8k base,"))
    tokens.write_text(tokens.read_text() + row.replace("gsm8k", "gsm8k-svamp") + "\n")
    assert figures.accuracy(results) == figures.accuracy(RESULTS)


def test_a_verdict_more_or_less_moves_a_point(results: Path) -> None:
    file = results / "verdicts" / "gsm8k.csv"
    with file.open(newline="") as opened:
        head, *rows = csv.reader(opened)
    column = head.index("base_direct")
    rows[0][column] = {"r": "w"}.get(rows[0][column], "r")
    file.write_text("\n".join(map(",".join, [head, *rows])) + "\n")
    assert figures.accuracy(results) != figures.accuracy(RESULTS)


def test_answers_with_other_latents_are_not_in_the_figure(results: Path) -> None:
    file = results / "verdicts" / "gsm8k.csv"
    head, *rows = [line.split(",") for line in file.read_text().splitlines()]
    column = head.index("uniform:0:zeros")
    file.write_text("\n".join(",".join([*row[:column], *row[column + 1 :]]) for row in [head, *rows]) + "\n")
    assert figures.accuracy(results) == figures.accuracy(RESULTS)


def test_a_second_training_widens_no_marker_but_takes_part_in_its_point(results: Path) -> None:
    """A second seed that is always wrong halves the accuracy of its system."""
    file = results / "verdicts" / "gsm8k.csv"
    head, *rows = [line.split(",") for line in file.read_text().splitlines()]
    file.write_text("\n".join(map(",".join, [[*head, "uniform:1"], *([*row, "w"] for row in rows)])) + "\n")
    low, high = markers(figures.accuracy(results)), markers(figures.accuracy(RESULTS))
    assert len(low) == len(high)
    changed = [after - before for after, before in zip(low, high, strict=True) if after != before]
    assert len(changed) == 1
    share = changed[0] / (max(high) - min(high))  # downwards is positive in SVG
    with (RESULTS / "tokens.csv").open(newline="") as opened:
        accuracies = [float(row["accuracy"]) for row in csv.DictReader(opened)]
    uniform = json.loads((RESULTS / "accuracy.json").read_bytes())["gsm8k"]["uniform"]
    assert share == pytest.approx(uniform / 2 / (max(accuracies) - min(accuracies)), rel=1e-4)


def markers(svg: bytes) -> list[float]:
    """The heights of all points in the panels, in the order in which they were drawn; those of the legend are left out."""
    drawn = [float(one.attrib["y"]) for one in ElementTree.fromstring(svg).iter(f"{SVG}use") if "--s" in one.attrib["style"]]
    return drawn[: -len({system for row in json.loads((RESULTS / "accuracy.json").read_bytes()).values() for system in row})]


@pytest.mark.parametrize("gone", ["tokens.csv", "verdicts/tooluse.csv"])
def test_results_that_are_not_whole_are_refused(results: Path, gone: str) -> None:
    (results / gone).unlink()
    with pytest.raises(DataError, match=r"holds no whole report .*: run `dvc repro report`"):
        figures.accuracy(results)


def test_a_system_without_verdicts_is_refused(results: Path) -> None:
    with (results / "tokens.csv").open("a") as file:
        file.write("gsm8k new,gsm8k,new,1.0,0,0.0,0.5\n")
    with pytest.raises(DataError, match="holds no whole report"):
        figures.accuracy(results)


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "figures").glob("*.svg")), ids=lambda file: file.stem)
def test_a_figure_has_a_description_two_themes_and_nothing_from_outside(file: Path) -> None:
    text = file.read_text()
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert root[0].tag == f"{SVG}title"
    assert "prefers-color-scheme:dark" in text.replace(" ", "")
    assert not re.search(r"<script|<image|<foreignObject|@import|url\((?!#)|href=\"(?!#)", text)
    used, defined = set(re.findall(r"var\(--([\w-]+)\)", text)), re.findall(r"--([\w-]+):", text)
    assert used
    assert all(defined.count(name) == 2 for name in used), "each colour has a value in light and one in dark"


def test_the_figures_are_put_in_their_places_and_nothing_else_changes(results: Path) -> None:
    root = results.parent
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, root / name)
    shutil.copytree(ROOT / "params", root / "params")
    start, middle, end = "# Title\n\n```mermaid\n", "flowchart LR\n    base --> moon\n", "```\n\n```\nbase --> moon\n```\n"
    (root / "README.md").write_text(start + middle + end)
    assert figures.write(root) == [figures.ACCURACY, figures.README]
    assert (root / figures.README).read_text() == start + figures.mermaid(ROOT) + end
    assert (root / figures.ACCURACY).read_bytes() == figures.accuracy(RESULTS)


def test_a_readme_without_a_place_for_the_graph_is_refused(results: Path) -> None:
    (results.parent / "README.md").write_text("# Title\n")
    with pytest.raises(DataError, match=r"README\.md has no Mermaid block"):
        figures.write(results.parent)
    assert not (results.parent / figures.ACCURACY).exists()
