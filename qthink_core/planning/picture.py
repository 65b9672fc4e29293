"""The stages as a Mermaid graph, drawn from dvc.yaml: the picture of README.md. No torch."""

import re
from pathlib import Path

from qthink_core.artifacts.store import write_file
from qthink_core.errors import DataError
from qthink_core.pipeline import code, graph, parameters
from qthink_core.planning import schedule

README = Path("README.md")
_BLOCK = re.compile(r"(?<=^```mermaid\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)


def write(root: Path) -> Path:
    """Replaces the Mermaid block of README.md by the graph of dvc.yaml; returns the path. DataError where there is none."""
    text = (root / README).read_text()
    if not _BLOCK.search(text):
        raise DataError(f"{README} has no Mermaid block to replace: add a line ```mermaid and a line ``` below it")
    drawn = mermaid(root)
    write_file(root / README, _BLOCK.sub(lambda _: drawn, text, count=1).encode())
    return README


def mermaid(root: Path) -> str:
    """The graph of the stages in the order of dvc.yaml, an arrow a line.

    Left out are `fingerprint`, which every stage depends on, and arrows that a longer way through the graph implies.
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
