"""The boxes of a run: the first output of each, the boxes that it needs, and how many run side by side. No torch."""

import graphlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qthink_core.pipeline import graph, process
from qthink_core.pipeline.graph import Box


def first_outputs(root: Path, tree: Mapping[str, Any]) -> dict[Box, Path]:
    """Every box of the graph, in the order of dvc.yaml, with the first folder or file that it makes."""
    return {
        at: Path(graph.resolve(outputs(entry)[0], at, tree))
        for name, entry in graph.stages(root).items()
        for at in graph.boxes(name, entry, tree)
    }


def edges(root: Path, tree: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Every box with the boxes that make its deps, in an order in which each box comes after those."""
    makers: dict[Path, str] = {}
    below: dict[Path, set[str]] = {}  # what is made at a path or inside it
    reads: dict[str, list[Path]] = {}
    for name, entry in graph.stages(root).items():
        for at in graph.boxes(name, entry, tree):
            for out in outputs(entry):
                path = Path(graph.resolve(out, at, tree))
                makers[path] = str(at)
                for folder in (path, *path.parents):
                    below.setdefault(folder, set()).add(str(at))
            reads[str(at)] = [Path(graph.resolve(dep, at, tree)) for dep in entry.get("deps", [])]
    found = {
        box: frozenset(
            maker for dep in deps for maker in (*below.get(dep, ()), *(makers[one] for one in dep.parents if one in makers))
        )
        for box, deps in reads.items()
    }
    return {box: found[box] for box in graphlib.TopologicalSorter(found).static_order()}


def outputs(entry: Mapping[str, Any]) -> list[str]:
    """The paths that a stage of dvc.yaml makes, including metrics and plots."""
    listed = [out for kind in ("outs", "metrics", "plots") for out in entry.get(kind, [])]
    return [next(iter(out)) if isinstance(out, Mapping) else out for out in listed]


def side_by_side(threads: int, fit: float) -> int:
    """How many boxes with this many threads run at once: limited by the processors and by `fit`, what memory holds."""
    return max(1, int(min(process.cores() // threads, fit)))
