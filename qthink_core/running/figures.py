"""The figures of README.md: accuracy against the cost of an answer, from results/, and the stages, from dvc.yaml."""

import csv
import re
from importlib import resources
from pathlib import Path

import numpy as np

from qthink_core.artifacts.files import write_file
from qthink_core.errors import DataError
from qthink_core.evidence.findings import Cell
from qthink_core.evidence.statistics import estimate
from qthink_core.pipeline import code, graph, parameters
from qthink_core.planning import schedule
from qthink_core.report import plots
from qthink_core.report.params import SYSTEM_NAMES
from qthink_core.report.revisions import OF_SET, verdicts_of

ACCURACY, README = Path("docs/figures/accuracy.svg"), Path("README.md")
_BLOCK = re.compile(r"(?<=^```mermaid\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_ABOUT = "Accuracy in per cent with 95 % intervals against mean generated tokens and latent passes, one panel a benchmark"


def write(root: Path) -> list[Path]:
    """Draws both figures and returns the files written; equal inputs give equal bytes.

    Raises DataError when results/ is incomplete, or README.md has no Mermaid block to replace.
    """
    text = (root / README).read_text()
    if not _BLOCK.search(text):
        raise DataError(f"{README} has no Mermaid block to replace: add a line ```mermaid and a line ``` below it")
    picture = mermaid(root)
    write_file(root / ACCURACY, accuracy(root / "results"))
    write_file(root / README, _BLOCK.sub(lambda _: picture, text, count=1).encode())
    return [ACCURACY, README]


def accuracy(results: Path) -> bytes:
    """The figure as an SVG file that follows the reader's light or dark theme.

    Tokens and latent passes are those of tokens.csv; accuracies and 95 % intervals follow from verdicts/. Raises DataError
    when a file is missing, or when it does not hold what `report` writes.
    """
    cells: dict[str, dict[str, Cell]] = {}
    try:
        with (results / "tokens.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if OF_SET not in row["benchmark"]]  # benchmarks, not test sets
        tasks = {row["benchmark"] for row in rows}
        right = {task: verdicts_of((results / "verdicts" / f"{task}.csv").read_bytes()).right for task in tasks}
        for row in rows:
            found = estimate(np.array(right[row["benchmark"]][row["system"], ""]))
            cell = Cell(*found, float(row["mean_tokens"]), float(row["hit_limit"]), int(row["latent_passes"]))
            cells.setdefault(row["benchmark"], {})[row["system"]] = cell
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{results} holds no whole report ({error}): run `dvc repro report`") from None
    names = {system: SYSTEM_NAMES.get(system, system) for row in cells.values() for system in row}
    return _file(plots.accuracy_panels("accuracy", _ABOUT, cells, names))


def _file(svg: str) -> bytes:
    """The SVG element as a complete file, in the colours of the report page."""
    css = (resources.files("qthink_core.report") / "templates" / "page.css").read_text()
    light: dict[str, str] = {}
    dark: dict[str, str] = {}
    for name, colour in re.findall(r"--(ink|line|s\d): (#\w+)", css):
        (dark if name in light else light)[name] = colour
    themes = ["".join(f"--{name}:{colour};" for name, colour in theme.items()) for theme in (light, dark)]
    look = f":root{{{themes[0]}}}@media(prefers-color-scheme:dark){{:root{{{themes[1]}}}}}text{{font-family:sans-serif}}"
    start = '<svg xmlns="http://www.w3.org/2000/svg"'
    return (svg.replace("<svg", start, 1).replace("</title>", f"</title><style>{look}</style>", 1) + "\n").encode()


def mermaid(root: Path) -> str:
    """The graph of the stages in the order of dvc.yaml, one arrow per line.

    It leaves out `fingerprint`, which every stage depends on, and arrows that a longer path implies.
    """
    tree, _ = parameters.load(root)
    needs: dict[str, set[str]] = {stage: set() for stage in graph.stages(root) if stage != code.STAGE}
    for box, makers in schedule.edges(root, tree).items():
        stage = graph.Box.parse(box).stage
        if stage in needs:
            needs[stage] |= {graph.Box.parse(one).stage for one in makers} - {code.STAGE}

    def above(stage: str) -> set[str]:
        return needs[stage].union(*map(above, needs[stage]))

    arrows = {
        (one, stage) for stage, direct in needs.items() for one in direct - set().union(*(above(other) for other in direct))
    }
    order = list(needs)
    listed = sorted(arrows, key=lambda arrow: (order.index(arrow[0]), order.index(arrow[1])))
    return "".join(["flowchart LR\n", *(f"    {one} --> {other}\n" for one, other in listed)])
