"""Which boxes make what a box depends on, and how many boxes run side by side. No torch."""

import graphlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qthink_core.pipeline import graph, process


def edges(root: Path, tree: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Every box with the boxes that make what it depends on, each behind those that it needs."""
    makers: dict[Path, str] = {}
    below: dict[Path, set[str]] = {}  # what is made at a path or inside of it
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
    """The paths that a stage of dvc.yaml makes, metrics and plots among them."""
    listed = [out for kind in ("outs", "metrics", "plots") for out in entry.get(kind, [])]
    return [next(iter(out)) if isinstance(out, Mapping) else out for out in listed]


def side_by_side(threads: int, fit: float) -> int:
    """How many boxes run at once, each on so many threads: as this process may use processors, and as `fit` into memory."""
    return max(1, int(min(process.cores() // threads, fit)))
