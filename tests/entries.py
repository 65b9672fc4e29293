"""The section `data` of params.yaml, and problems gathered by it."""

from pathlib import Path
from typing import Any

from imports import ROOT
from worlds import WORLD

from qthink_core.benchmarks import problems
from qthink_core.benchmarks.data_entries import Entry
from qthink_core.benchmarks.problems import Gathered
from qthink_core.pipeline import parameters

RAW: dict[str, Any] = parameters.read_yaml(ROOT / "params.yaml")["data"]
ENTRIES = {name: Entry.model_validate(one) for name, one in RAW.items()}
ALL = {"n_train": "all", "n_validation": 0, "n_test": "all", "max_left_out": 100, "seed": 0, "world": WORLD}


def gather(task: str, source: Any, folder: Path | None = None, entry: Entry | None = None, **more: Any) -> Gathered:
    """The problems of a task as `prepare` gathers them, all of a source unless `more` says otherwise."""
    return problems.gather(task, entry or ENTRIES[task], source, str(folder), **ALL | more)
